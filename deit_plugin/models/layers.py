"""Changes to mmpretrain's encoder layers."""

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn.bricks import drop as mmcv_drop
from mmengine.model import BaseModule
from mmpretrain.models import resize_pos_embed
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils.attention import scaled_dot_product_attention_pyimpl
from timm.layers import DropPath


class TokenEncoderLayer(TransformerEncoderLayer):
    """A last encoder layer of which only the first tokens are read.

    In training it gives these alone: they attend to all tokens, but nothing reads what the layer would
    make of the patches, three quarters of its work. In evaluation it gives all tokens, and in training
    too where the layer or a part of it has a hook, which then sees them all.

    Args:
        layer (TransformerEncoderLayer): Whose parts it takes over.
        num_tokens (int): T, how many tokens are read.
    """

    def __init__(self, layer: TransformerEncoderLayer, num_tokens: int):
        BaseModule.__init__(self)
        self.embed_dims = layer.embed_dims
        self.ln1, self.attn, self.ln2, self.ffn = layer.ln1, layer.attn, layer.ln2, layer.ffn
        self.num_tokens = num_tokens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, C) to (B, T, C) in training without hooks, else to (B, N, C)."""
        if not self.training or self._has_hooks():
            return super().forward(x)
        x = x[:, : self.num_tokens] + self._attend(self.ln1(x))
        return self.ffn(self.ln2(x), identity=x)

    def _has_hooks(self) -> bool:
        return any(
            m._forward_pre_hooks or m._forward_hooks or m._backward_pre_hooks or m._backward_hooks
            for m in self.modules()
        )

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        attn = self.attn
        batch, length, width = x.shape
        q, k, v = attn.qkv(x).reshape(batch, length, 3, attn.num_heads, attn.head_dims).permute(2, 0, 3, 1, 4)
        out = attn.scaled_dot_product_attention(q[:, :, : self.num_tokens], k, v, dropout_p=attn.attn_drop)
        out = attn.proj(out.transpose(1, 2).reshape(batch, self.num_tokens, width))
        return attn.out_drop(attn.gamma1(attn.proj_drop(out)))


def use_timm_drop_path(layers: nn.ModuleList):
    """Replace mmcv's drop path by timm's: one pass over the activations instead of two, and a
    probability that is not a numpy scalar, which torch.export refuses."""
    for module in list(layers.modules()):
        for name, child in module.named_children():
            if isinstance(child, mmcv_drop.DropPath):
                setattr(module, name, DropPath(float(child.drop_prob)))


def fit_positions(
    pos_embed: torch.Tensor, own: Sequence[int], grid: Sequence[int], mode: str, num_tokens: int
) -> torch.Tensor:
    """Position embeddings for another grid, of a size that may be symbolic.

    mmpretrain's function compares the grids first, which binds a program of torch.export to those that are
    not the model's own; here one of symbolic size interpolates always. To its own size that changes nothing.

    Args:
        pos_embed (torch.Tensor): (1, T + N, C).
        own (Sequence[int]): Their grid, (height, width), N in all.
        grid (Sequence[int]): That of the image.
        mode (str): Of ``torch.nn.functional.interpolate``.
        num_tokens (int): T, how many stand before the patches.
    """
    if not any(isinstance(side, torch.SymInt) for side in grid):
        return resize_pos_embed(pos_embed, own, grid, mode, num_tokens)
    patches = pos_embed[:, num_tokens:].unflatten(1, tuple(own)).permute(0, 3, 1, 2)  # (1, C, H, W)
    patches = F.interpolate(patches.float(), size=tuple(grid), mode=mode, align_corners=False)
    patches = patches.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return torch.cat([pos_embed[:, :num_tokens], patches], dim=1)


def use_plain_attention(layers: nn.ModuleList):
    """Compute the attention matrix explicitly, for tools that read or export it."""
    for layer in layers:
        layer.attn.scaled_dot_product_attention = scaled_dot_product_attention_pyimpl
