"""The DeiT backbone (Touvron et al. 2021, arXiv 2012.12877)."""
import math
from functools import partial
from typing import Sequence, Union

import torch
import torch.nn as nn
from mmcv.cnn.bricks import drop as mmcv_drop
from mmengine.logging import print_log
from mmengine.model.weight_init import trunc_normal_
from mmengine.utils import to_2tuple
from mmpretrain.models import VisionTransformer, resize_pos_embed
from mmpretrain.models.backbones.vision_transformer import \
    TransformerEncoderLayer
from mmpretrain.models.utils.attention import (
    MultiheadAttention, scaled_dot_product_attention_pyimpl)
from mmpretrain.registry import MODELS
from timm.layers import DropPath
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils.checkpoint import checkpoint

from ..formats import some, to_mmpretrain


def _arch(width: int, heads: int) -> dict:
    return dict(
        embed_dims=width,
        num_layers=12,
        num_heads=heads,
        feedforward_channels=4 * width)


@MODELS.register_module()
class DeiT(VisionTransformer):
    """Data-efficient image transformer, with or without the distillation
    token.

    The parameters bear the names of mmpretrain's ``VisionTransformer`` and
    ``DistilledVisionTransformer``. Whatever model has a DeiT as a part also
    loads the weights of facebookresearch/deit, timm and transformers, under
    their names.
    Weights are drawn as in facebookresearch/deit at ``7e160fe``: linear
    layers, tokens and position embeddings from a normal distribution of
    standard deviation 0.02, biases zero, the patch convolution as PyTorch
    does it.

    Args:
        arch (str | dict): ``'tiny'`` (width 192, 3 heads), ``'small'`` (384,
            6) or ``'base'`` (768, 12), or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads`` and ``feedforward_channels``.
        distilled (bool): Whether the model has a distillation token beside
            the class token. Defaults to False.
        img_size (int | tuple): Height and width, in pixels, that the position
            embeddings are made for. Other sizes work through interpolation,
            as long as the patch size divides them. Defaults to 224.
        patch_size (int | tuple): Height and width of a patch, in pixels.
            Defaults to 16.
        in_channels (int): Channels of the image. Defaults to 3.
        drop_path_rate (float): Stochastic depth of the last layer, in
            [0, 1); it grows linearly from 0 at the first layer.
            Defaults to 0.
        out_indices (int | Sequence[int]): The layers whose output is
            returned, negative ones counted from the end. Defaults to -1.
        out_type (str): What is returned of each of these layers.

            - ``'cls_token'``: the class token (B, C); with ``distilled`` the
              pair (class token, distillation token).
            - ``'raw'``: all tokens (B, 1 + N, C), with ``distilled``
              (B, 2 + N, C): class token, distillation token, patches.
            - ``'featmap'``: the patch tokens as a map (B, C, H, W), for
              dense prediction.
            - ``'avg_featmap'``: the normalised mean of the patch tokens
              (B, C).

            Defaults to ``'cls_token'``.
        frozen_stages (int): -1 trains everything; 0 freezes the patch
            embedding, the tokens and the position embeddings; k freezes the
            first k layers too, and all layers the last norm with them.
            Frozen parts stay in eval mode. Defaults to -1.
        with_cp (bool): Whether to recompute each layer in the backward pass
            instead of keeping its activations. Defaults to False.
        fused_attn (bool): Whether to use PyTorch's fused attention and, in
            training, to leave the patches out of what the last layer does
            after its attention, as nothing reads them; otherwise all is
            computed and the attention matrix is built, which tools that read
            it or export it may need. Defaults to True.
        **kwargs: Further arguments of mmpretrain's ``VisionTransformer``:
            ``drop_rate``, ``qkv_bias``, ``norm_cfg``, ``final_norm``,
            ``interpolate_mode``, ``layer_scale_init_value``, ``patch_cfg``,
            ``layer_cfgs``, ``init_cfg``.

    Raises:
        ValueError: If an argument is out of its range, if an image does not
            fit the patch size, or if a state dict is of another
            architecture.
    """
    arch_zoo = dict(
        tiny=_arch(192, 3), small=_arch(384, 6), base=_arch(768, 12))

    def __init__(self,
                 arch: Union[str, dict] = 'base',
                 distilled: bool = False,
                 img_size: Union[int, Sequence[int]] = 224,
                 patch_size: Union[int, Sequence[int]] = 16,
                 in_channels: int = 3,
                 drop_path_rate: float = 0.,
                 out_indices: Union[int, Sequence[int]] = -1,
                 out_type: str = 'cls_token',
                 frozen_stages: int = -1,
                 with_cp: bool = False,
                 fused_attn: bool = True,
                 **kwargs):
        num_layers = self._check_arch(arch)
        if not 0 <= drop_path_rate < 1:
            raise ValueError(
                f'drop_path_rate={drop_path_rate} is not in [0, 1)')
        if not -1 <= frozen_stages <= num_layers:
            raise ValueError(f'frozen_stages={frozen_stages} is not in '
                             f'[-1, {num_layers}], the number of layers')
        indices = [out_indices] if isinstance(out_indices, int) \
            else list(out_indices)
        if any(not -num_layers <= i < num_layers for i in indices):
            raise ValueError(f'out_indices={out_indices} names a layer that '
                             f'is not in [-{num_layers}, {num_layers - 1}]')
        self._check_fit('img_size', to_2tuple(img_size), to_2tuple(patch_size))
        if not kwargs.pop('with_cls_token', True):
            raise ValueError('DeiT always has a class token: '
                             'with_cls_token=False is VisionTransformer')

        for cfg in _as_list(kwargs.get('init_cfg')):
            # Not all files have it; those that do are read without, too.
            if cfg.get('prefix') in ('backbone', 'backbone.'):
                kwargs['init_cfg'] = [
                    {k: v for k, v in c.items() if k != 'prefix'}
                    for c in _as_list(kwargs['init_cfg'])
                ]

        # The parent reads this while it makes the position embeddings.
        self.num_extra_tokens = 2 if distilled else 1
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            drop_path_rate=drop_path_rate,
            out_indices=indices,
            out_type=out_type,
            frozen_stages=-1,  # frozen below, once every token is there
            **kwargs)
        self.distilled = distilled
        self.patch_size = to_2tuple(patch_size)
        self.with_cp = with_cp
        self.fused_attn = fused_attn
        if distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        self._use_timms_drop_path()
        if not fused_attn:
            for layer in self.layers:
                layer.attn.scaled_dot_product_attention = \
                    scaled_dot_product_attention_pyimpl
        self._draw_weights()
        self.frozen_stages = frozen_stages
        self._freeze_stages()

    def _use_timms_drop_path(self):
        # One pass over the activations where mmcv's takes two, and a
        # probability that is no numpy scalar, which torch.export refuses.
        for module in list(self.layers.modules()):
            for name, child in module.named_children():
                if isinstance(child, mmcv_drop.DropPath):
                    setattr(module, name, DropPath(float(child.drop_prob)))

    def _check_arch(self, arch: Union[str, dict]) -> int:
        """The number of layers of a valid ``arch``."""
        keys = self.arch_zoo['base'].keys()
        if isinstance(arch, dict):
            if missing := keys - arch.keys():
                raise ValueError(
                    f'arch={arch} lacks {sorted(missing)}; '
                    f'a dict needs {sorted(keys)}')
            if arch['embed_dims'] % arch['num_heads']:
                raise ValueError(
                    f'arch={arch}: embed_dims is no multiple of num_heads')
            return arch['num_layers']
        if not isinstance(arch, str) or arch.lower() not in self.arch_zoo:
            raise ValueError(f'arch={arch!r} is unknown: choose one of '
                             f'{sorted(self.arch_zoo)}, or give a dict with '
                             f'{sorted(keys)}')
        return self.arch_zoo[arch.lower()]['num_layers']

    @staticmethod
    def _check_fit(name: str, size: Sequence[int], patch: Sequence[int]):
        if any(s < p or s % p for s, p in zip(size, patch)):
            raise ValueError(
                f'{name} {tuple(size)} (height, width) is no multiple of '
                f'patch_size {tuple(patch)}: resize or pad the image')

    def _draw_weights(self):
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        trunc_normal_(self.cls_token, std=.02)
        trunc_normal_(self.pos_embed, std=.02)
        if self.distilled:
            trunc_normal_(self.dist_token, std=.02)

    def init_weights(self):
        """Draw the weights anew, then apply ``init_cfg``."""
        self._draw_weights()
        # mmpretrain's layers would put Xavier weights over the recipe's, and
        # its backbone new position embeddings over those of a checkpoint.
        self.layers.is_init = True
        super(VisionTransformer, self).init_weights()

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
        yield from self.layers[:self.frozen_stages]
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
        self._check_fit('image', x.shape[-2:], self.patch_size)
        return self._encode(*self.patch_embed(x))

    def _encode(self, x: torch.Tensor, grid: Sequence[int]) -> tuple:
        """``forward`` from the patch embeddings (B, N, C) of a grid on."""
        tokens = [self.cls_token.expand(x.shape[0], -1, -1)]
        if self.distilled:
            tokens.append(self.dist_token.expand(x.shape[0], -1, -1))
        x = torch.cat([*tokens, x], dim=1)  # (B, 1+N or 2+N, C)
        x = x + resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            grid,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens)
        x = self.pre_norm(self.drop_after_pos(x))

        outs = []
        for i, layer in enumerate(self.layers):
            if i == self.num_layers - 1 and self._only_tokens_matter(layer):
                layer = partial(_encode_tokens, layer, self.num_extra_tokens)
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, grid))
        return tuple(outs)

    def _only_tokens_matter(self, layer: nn.Module) -> bool:
        """Whether the last layer may leave out the patches: in training,
        unless somebody looks at what it does."""
        return (self.training and self.fused_attn
                and self.out_type == 'cls_token'
                and type(layer) is TransformerEncoderLayer
                and type(layer.attn) is MultiheadAttention
                and not layer.attn.v_shortcut
                and layer._compiled_call_impl is None
                and not any(part._forward_hooks or part._forward_pre_hooks
                            or part._backward_hooks
                            or part._backward_pre_hooks
                            for part in (layer, layer.attn)))

    def _format_output(self, x: torch.Tensor, hw: Sequence[int]):
        if self.out_type == 'cls_token' and self.distilled:
            return x[:, 0], x[:, 1]
        if self.out_type == 'raw' and not torch.compiler.is_compiling():
            # So that DistillationTokenNeck knows what the tokens are.
            x.num_extra_tokens = self.num_extra_tokens
        return super()._format_output(x, hw)

    def get_layer_depth(self, param_name: str, prefix: str = ''):
        """As mmpretrain's; the distillation token belongs to the stem."""
        if param_name == f'{prefix}dist_token':
            return 0, self.num_layers + 2
        return super().get_layer_depth(param_name, prefix)

    def _prepare_pos_embed(self, state_dict: dict, prefix: str, *args,
                           **kwargs):
        """Fit a state dict to this model before it is loaded.

        Position embeddings of another grid are resized, those of another
        number of extra tokens are completed or cut. What is not the same
        architecture is refused: mmengine itself only warns of it and runs the
        model half filled.
        """
        if not prefix:
            _translate('', self, state_dict, prefix)
        own = {
            prefix + name: value.shape
            for name, value in nn.Module.state_dict(self).items()
        }
        given = {k for k in state_dict if k.startswith(prefix)}
        mask = prefix + 'mask_token'
        optional = {prefix + 'dist_token', mask}  # of the other variants
        optional |= {k for k in own if k.startswith(prefix + 'ln2.')}
        missing = sorted(own.keys() - given - optional)
        unknown = sorted(given - own.keys() - optional)
        if any('.lora_' in k for k in own) and \
                any('.lora_' in k for k in given):
            missing = []  # mmpretrain's LoRAModel stores its own part alone
        if missing or unknown:
            raise ValueError(
                'The state dict is not of this DeiT '
                f'({self.num_layers} layers, width {self.embed_dims}): of '
                f'its {len(own)} keys it lacks {some(missing)}; not known '
                f'here are {some(unknown)}')
        if mask in state_dict and mask not in own:
            print_log(
                f'{mask} is left out: only MaskedDeiT has one',
                logger='current')
            del state_dict[mask]
        if prefix + 'pos_embed' in state_dict:
            self._fit_pos_embed(state_dict, prefix)
        wrong = [
            f'{k} {tuple(state_dict[k].shape)}, here {tuple(shape)}'
            for k, shape in own.items()
            if k in state_dict and state_dict[k].shape != shape
        ]
        if wrong:
            raise ValueError(
                'The state dict is not of this DeiT '
                f'({self.num_layers} layers, width {self.embed_dims}): the '
                f'shapes differ in {some(wrong)}')

    def _fit_pos_embed(self, state_dict: dict, prefix: str):
        name, dist = prefix + 'pos_embed', prefix + 'dist_token'
        pos_embed = state_dict[name]
        if pos_embed.ndim != 3 or pos_embed.shape[-1] != self.embed_dims:
            return  # the comparison of the shapes reports it
        extra = 2 if dist in state_dict else 1
        num_patches = pos_embed.shape[1] - extra
        if num_patches == self.pos_embed.shape[1] - self.num_extra_tokens:
            grid = self.patch_resolution
            if grid[0] != grid[1]:
                print_log(
                    f'{name}: its {num_patches} positions are taken for a '
                    f'grid of {grid[0]} x {grid[1]}, as here',
                    logger='current')
        else:
            side = math.isqrt(num_patches)
            if side * side != num_patches:
                raise ValueError(
                    f'{name} has {num_patches} patch positions, which make '
                    'no square grid, so its height and width are unknown: '
                    'build the model with the img_size that it was trained '
                    'with')
            grid = (side, side)
            print_log(
                f'{name}: positions of a {side} x {side} grid resized '
                f'({self.interpolate_mode}) to '
                f'{self.patch_resolution[0]} x {self.patch_resolution[1]}',
                logger='current')

        if extra == 1 and self.distilled:
            print_log(
                f'{dist} is not in the state dict of a plain DeiT: the token '
                'and its position keep their initial values',
                logger='current')
            own = self.pos_embed.detach()[:, 1:2].to(pos_embed)
            pos_embed = torch.cat(
                [pos_embed[:, :1], own, pos_embed[:, 1:]], dim=1)
        elif extra == 2 and not self.distilled:
            print_log(
                f'{dist} and its position are left out: this DeiT has no '
                'distillation token',
                logger='current')
            pos_embed = torch.cat([pos_embed[:, :1], pos_embed[:, 2:]], dim=1)
            del state_dict[dist]
        state_dict[name] = resize_pos_embed(pos_embed, grid,
                                            self.patch_resolution,
                                            self.interpolate_mode,
                                            self.num_extra_tokens)


def _encode_tokens(layer: TransformerEncoderLayer, num_tokens: int,
                   x: torch.Tensor) -> torch.Tensor:
    """What a layer makes of the first tokens of (B, N, C), which see all
    others; those take three quarters of its work for nothing if it is the
    last."""
    attn = layer.attn
    batch, length, width = x.shape
    q, k, v = attn.qkv(layer.ln1(x)).reshape(
        batch, length, 3, attn.num_heads,
        attn.head_dims).permute(2, 0, 3, 1, 4)
    out = attn.scaled_dot_product_attention(
        q[:, :, :num_tokens], k, v,
        dropout_p=attn.attn_drop if attn.training else 0.)
    out = attn.proj(out.transpose(1, 2).reshape(batch, num_tokens, width))
    x = x[:, :num_tokens] + attn.out_drop(attn.gamma1(attn.proj_drop(out)))
    return layer.ffn(layer.ln2(x), identity=x)


def _as_list(cfgs) -> list:
    return [cfgs] if isinstance(cfgs, dict) else list(cfgs or [])


def _translate(name: str, parent: nn.Module, state_dict: dict, prefix: str,
               *args):
    """Give a whole model's state dict the names under which ``parent`` has
    its DeiT, ``name`` (none: it is the DeiT itself)."""
    own = name and name + '.'
    if prefix or own and not isinstance(getattr(parent, name), DeiT):
        return
    if own and any(key.startswith(own) for key in state_dict):
        # mmcls 0.x keeps what the moving average replaced, as copies.
        for key in [k for k in state_dict if k.startswith(f'ema_{name}_')]:
            del state_dict[key]
        return
    found, renamed = to_mmpretrain(state_dict)
    if found is None:
        raise ValueError(
            'The state dict is of no DeiT that is known here '
            '(facebookresearch/deit, timm, transformers, mmpretrain): there '
            f'is no place for {some(state_dict)}')
    if found != 'mmpretrain':
        print_log(
            f"The weights have {found}'s names and are taken over",
            logger='current')
    renamed = list(renamed.items())  # it may be the very same dict
    state_dict.clear()
    for key, value in renamed:
        if key.startswith('backbone.'):
            state_dict[key.replace('backbone.', own, 1)] = value
        elif own:
            state_dict[key] = value


def _adopt(parent: nn.Module, name: str, child: nn.Module):
    # A part of a model is loaded with its own share of the state dict, in
    # which names of other libraries are not.
    if isinstance(child, DeiT):
        parent.register_load_state_dict_pre_hook(partial(_translate, name))


register_module_module_registration_hook(_adopt)
