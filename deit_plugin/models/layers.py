"""Changes to mmpretrain's encoder layers."""

import torch
import torch.nn as nn
from mmcv.cnn.bricks import drop as mmcv_drop
from mmengine.model import BaseModule
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


def use_plain_attention(layers: nn.ModuleList):
    """Compute the attention matrix explicitly, for tools that read or export it."""
    for layer in layers:
        layer.attn.scaled_dot_product_attention = scaled_dot_product_attention_pyimpl
