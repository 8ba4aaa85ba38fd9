"""The DeiT backbone (Touvron et al. 2021, arXiv 2012.12877)."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.models import VisionTransformer
from mmpretrain.registry import MODELS
from torch.utils.checkpoint import checkpoint

from .arguments import check_arguments, check_fit, sizes
from .layers import (
    Attention,
    TokenEncoderLayer,
    calls_of_layers,
    fit_positions,
    own_drop_path,
    use_plain_attention,
)
from .state_dict import fit_state_dict, refuse_missing, translate

Size = int | Sequence[int]


@MODELS.register_module()
class DeiT(VisionTransformer):
    """Data-efficient image transformer, with or without the distillation token.

    The parameters have the names of mmpretrain's ``VisionTransformer`` and
    ``DistilledVisionTransformer``. State dicts of facebookresearch/deit, timm and transformers are
    translated when they are loaded into the backbone or into an ``ImageClassifier`` that has it; for
    other models see :func:`accept_foreign_names`.

    Weights are drawn as in facebookresearch/deit at ``7e160fe``: linear layers, tokens and position
    embeddings from a normal distribution of standard deviation 0.02, truncated at two, biases zero, the
    patch convolution as PyTorch does it.

    Args:
        arch (str | dict): ``'tiny'`` (width 192, 3 heads), ``'small'`` (384, 6) or ``'base'`` (768, 12),
            or a dict with ``embed_dims``, ``num_layers``, ``num_heads`` and ``feedforward_channels``.
        distilled (bool): Whether there is a distillation token beside the class token.
            Defaults to False.
        img_size (int | tuple): Height and width, in pixels, that the position embeddings are made for.
            Other sizes work through interpolation, as long as the patch size divides them.
            Defaults to 224.
        patch_size (int | tuple): Height and width of a patch, in pixels. Defaults to 16.
        in_channels (int): Channels of the image. Defaults to 3.
        drop_path_rate (float): Stochastic depth of the last layer, in [0, 1); it grows linearly from 0
            at the first layer. Defaults to 0.
        out_indices (int | Sequence[int]): The layers whose output is returned, negative ones counted
            from the end. Defaults to -1.
        out_type (str): What is returned of each of these layers. Defaults to ``'cls_token'``.

            - ``'cls_token'``: the class token (B, C); with ``distilled`` the pair (class token,
              distillation token). In training the last layer leaves out the patches, unless it has hooks.
            - ``'raw'``: all tokens (B, 1 + N, C), with ``distilled`` (B, 2 + N, C): class token,
              distillation token, patches.
            - ``'featmap'``: the patch tokens as a map (B, C, H, W), for dense prediction.
            - ``'avg_featmap'``: the normalised mean of the patch tokens (B, C).
        frozen_stages (int): -1 trains everything; 0 freezes the patch embedding, the tokens and the
            position embeddings; k freezes the first k layers too, and all layers the last norm with
            them. Frozen parts stay in eval mode. Defaults to -1.
        with_cp (bool): Whether to recompute each layer in the backward pass instead of keeping its
            activations. Defaults to False.
        fused_attn (bool): Whether to use PyTorch's fused attention. Otherwise the attention matrix is
            built, of all tokens, for tools that read or export it. Defaults to True.
        init_cfg (dict | list[dict], optional): As for mmengine's ``BaseModule``. A checkpoint must fill
            the backbone; its ``prefix='backbone.'`` may be absent in the file.
        **kwargs: Further arguments of mmpretrain's ``VisionTransformer``: ``drop_rate``, ``qkv_bias``,
            ``norm_cfg``, ``final_norm``, ``interpolate_mode``, ``layer_scale_init_value``,
            ``patch_cfg``, ``layer_cfgs``. ``patch_cfg=dict(padding=0)`` takes images of any size, and cuts
            off what fills no patch, at the right and below.

    Raises:
        ValueError: If an argument is out of its range, if an image does not fit the patch size, or if a
            state dict is of another architecture.
    """

    arch_zoo = dict(tiny=sizes(192, 3), small=sizes(384, 6), base=sizes(768, 12))
    tokens_have_positions = True  # else the patches alone

    def __init__(
        self,
        arch: str | dict = 'base',
        distilled: bool = False,
        img_size: Size = 224,
        patch_size: Size = 16,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        out_indices: Size = -1,
        out_type: str = 'cls_token',
        frozen_stages: int = -1,
        with_cp: bool = False,
        fused_attn: bool = True,
        init_cfg: dict | Sequence[dict] | None = None,
        **kwargs,
    ):
        check_arguments(
            self.arch_zoo, arch, img_size, patch_size, drop_path_rate, out_indices, frozen_stages, **kwargs
        )
        # The parent reads this while it makes the position embeddings.
        self.num_extra_tokens = 1 + distilled if self.tokens_have_positions else 0
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=out_indices if isinstance(out_indices, int) else list(out_indices),
            out_type=out_type,
            frozen_stages=-1,  # frozen below, once every token is there
            init_cfg=_without_prefix(init_cfg),
            **kwargs,
        )
        self.distilled, self.num_extra_tokens = distilled, 1 + distilled
        self.frozen_stages, self.with_cp, self.fused_attn = frozen_stages, with_cp, fused_attn
        if distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self._adapt_layers()
        self._draw_weights()
        self._freeze_stages()

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Height and width of a patch, in pixels."""
        return self.patch_embed.projection.kernel_size

    @property
    def num_position_tokens(self) -> int:
        """How many position embeddings stand before those of the patches."""
        return self.num_extra_tokens if self.tokens_have_positions else 0

    def _adapt_layers(self):
        self._paths = own_drop_path(self.layers)
        for layer in self.layers:
            layer.attn = Attention(layer.attn)
        if not self.fused_attn:
            use_plain_attention(self.layers)
        elif self.out_type == 'cls_token':
            self.layers[-1] = TokenEncoderLayer(self.layers[-1], self.num_extra_tokens)

    def _draw_weights(self):
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)
        if self.distilled:
            trunc_normal_(self.dist_token, std=0.02)

    def init_weights(self):
        """Draw the weights anew, then apply ``init_cfg``.

        Raises:
            ValueError: If the checkpoint of ``init_cfg`` does not fill the backbone.
        """
        self._draw_weights()
        # mmpretrain's layers would put Xavier weights over the recipe's, and its backbone new position
        # embeddings over those of a checkpoint.
        self.layers.is_init = True
        check = self.register_load_state_dict_post_hook(refuse_missing)
        try:
            super(VisionTransformer, self).init_weights()
        finally:
            check.remove()

    def _freeze_stages(self):
        if self.frozen_stages < 0:
            return
        tokens = [self.cls_token, self.pos_embed]
        if self.distilled:
            tokens.append(self.dist_token)
        for parameter in tokens:
            parameter.requires_grad = False
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def _frozen_modules(self):
        if self.frozen_stages < 0:
            return
        yield self.patch_embed
        yield self.drop_after_pos
        yield self.pre_norm
        yield from self.layers[: self.frozen_stages]
        if self.frozen_stages == self.num_layers and self.final_norm:
            yield self.ln1

    def train(self, mode: bool = True) -> 'DeiT':
        """Set the mode; frozen stages stay in eval mode."""
        nn.Module.train(self, mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def forward(self, x: torch.Tensor) -> tuple:
        """Encode images.

        Args:
            x (torch.Tensor): Normalised images (B, in_channels, H, W).

        Returns:
            tuple: One entry for each of ``out_indices``, in the order of the
            layers; see ``out_type``.
        """
        return self._encode(*self._embed(x))

    def _embed(self, x: torch.Tensor) -> tuple[torch.Tensor, Sequence[int]]:
        """The patch embeddings (B, N, C) of images, and their grid."""
        if self.patch_embed.adaptive_padding:  # else what fills no patch is cut off
            check_fit('image', x.shape[-2:], self.patch_size)
        return self.patch_embed(x)

    def _encode(self, x: torch.Tensor, grid: Sequence[int]) -> tuple:
        """``forward`` from the patch embeddings (B, N, C) of a grid on."""
        tokens = [self.cls_token.expand(x.shape[0], -1, -1)]
        if self.distilled:
            tokens.append(self.dist_token.expand(x.shape[0], -1, -1))
        positions = fit_positions(
            self.pos_embed, self.patch_resolution, grid, self.interpolate_mode, self.num_position_tokens
        )
        if self.tokens_have_positions:
            x = torch.cat([*tokens, x], dim=1) + positions  # (B, 1+N or 2+N, C)
        else:
            x = torch.cat([*tokens, x + positions], dim=1)
        x = self.pre_norm(self.drop_after_pos(x))
        outs = []
        for i, layer in enumerate(calls_of_layers(self.layers, self._paths, x)):
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, grid))
        return tuple(outs)

    def _format_output(self, x: torch.Tensor, hw: Sequence[int]):
        if self.out_type == 'cls_token' and self.distilled:
            return x[:, 0], x[:, 1]
        return super()._format_output(x, hw)

    def get_layer_depth(self, param_name: str, prefix: str = ''):
        """As mmpretrain's; the distillation token belongs to the stem."""
        if param_name == f'{prefix}dist_token':
            return 0, self.num_layers + 2
        return super().get_layer_depth(param_name, prefix)

    def _checkpoint_filter(self, state_dict: dict, prefix: str, *args):
        """mmpretrain's ``ImageClassifier`` calls this with a state dict that it is to load."""
        if not prefix:
            translate(self, state_dict, 'backbone.')

    def _prepare_pos_embed(self, state_dict: dict, prefix: str, *args, **kwargs):
        """mmpretrain's backbones register this to be called before they load a state dict."""
        if not prefix:  # it is loaded into the backbone itself
            translate(self, state_dict, '')
        fit_state_dict(self, state_dict, prefix)


def _without_prefix(init_cfg):
    """Not all files have the prefix ``backbone.``; those that do are read without it, too."""
    if init_cfg is None:
        return None
    return [
        {k: v for k, v in cfg.items() if (k, v) not in (('prefix', 'backbone'), ('prefix', 'backbone.'))}
        for cfg in ([init_cfg] if isinstance(init_cfg, dict) else init_cfg)
    ]
