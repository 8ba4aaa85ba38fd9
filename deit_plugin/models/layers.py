"""Changes to mmpretrain's encoder layers."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.cnn.bricks import drop as mmcv_drop
from mmengine.model import BaseModule
from mmpretrain.models import resize_pos_embed
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils.attention import MultiheadAttention, scaled_dot_product_attention_pyimpl

from ..draws import parts
from .sending import send


class Attention(MultiheadAttention):
    """mmpretrain's self-attention, of which some queries may be left out.

    Queries, keys and values are unbound. Three indices, as mmpretrain has them, each make a gradient for all
    three, nearly all of it zero, and add them up; the sum is the same to the bit.

    Args:
        attn (MultiheadAttention): Whose parts it takes over.
    """

    def __init__(self, attn: MultiheadAttention):
        BaseModule.__init__(self)
        self.__dict__.update(attn.__dict__)

    def forward(self, x: torch.Tensor, num_queries: int | None = None) -> torch.Tensor:
        """(B, N, C) to (B, N, C), or to (B, T, C) of the first T tokens as queries."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, self.head_dims)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if num_queries is not None:
            q = q[:, :, :num_queries]
        drop = self.attn_drop if self.training else 0.0
        out = self.scaled_dot_product_attention(q, k, v, dropout_p=drop)
        out = self.proj(out.transpose(1, 2).reshape(batch, q.shape[2], self.embed_dims))
        return self.out_drop(self.gamma1(self.proj_drop(out)))


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
        x = x[:, : self.num_tokens] + self.attn(self.ln1(x), self.num_tokens)
        return self.ffn(self.ln2(x), identity=x)

    def _has_hooks(self) -> bool:
        return any(
            m._forward_pre_hooks or m._forward_hooks or m._backward_pre_hooks or m._backward_hooks
            for m in self.modules()
        )


class DropPath(nn.Module):
    """mmcv's drop path, which a :class:`DeiT` tells what is kept, drawn for all layers at once.

    One pass over the activations instead of two, and the probability is no numpy scalar, which torch.export
    refuses.

    Args:
        drop_prob (float): The probability that the path of an image is dropped, in [0, 1).
    """

    def __init__(self, drop_prob: float):
        super().__init__()
        self.drop_prob = drop_prob
        self.scale: torch.Tensor | None = None  # (B, ), of each image in the call of the layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ...) to the same shape."""
        if not self.training or self.drop_prob == 0:
            return x
        scale = draw_paths([self], len(x), x.device)[0] if self.scale is None else self.scale
        return x * scale.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


@torch.compiler.disable
def draw_paths(paths: Sequence[DropPath], number: int, device: torch.device) -> torch.Tensor:
    """Draw which paths of a batch are kept, on the CPU.

    Args:
        paths (Sequence[DropPath]): Of all layers, P.
        number (int): Images in the batch, B.
        device (torch.device): Where the batch is.

    Returns:
        torch.Tensor: The factor of each path and image, (P, B) on the device.
    """
    drawn = [torch.rand(len(paths), len(range(number)[part])) for part in parts(number, 'drop path')]
    dropped = torch.tensor([path.drop_prob for path in paths]).view(-1, 1)
    return send((torch.cat(drawn, 1) >= dropped) / (1 - dropped), device)


def calls_of_layers(
    layers: nn.ModuleList, paths: Sequence[list[DropPath]], x: torch.Tensor
) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """The layers, with what their paths keep of a batch; the backward pass may call them again.

    Args:
        layers (nn.ModuleList): L layers.
        paths (Sequence[list[DropPath]]): Of each layer, those that drop.
        x (torch.Tensor): The batch (B, ...).
    """
    numbers = [len(of_layer) for of_layer in paths]
    scales: Sequence[Sequence] = [()] * len(numbers)
    flat = sum(paths, [])
    if any(path.training for path in flat):
        scales = draw_paths(flat, len(x), x.device).split(numbers)
    return map(partial, [_call] * len(numbers), layers, paths, scales)


def _call(layer: nn.Module, paths: Sequence[DropPath], scales: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    for path, scale in zip(paths, scales):
        path.scale = scale
    try:
        return layer(x)
    finally:
        for path in paths:
            path.scale = None


def own_drop_path(layers: nn.ModuleList) -> list[list[DropPath]]:
    """Replace mmcv's drop path; those that drop are returned, of each layer."""
    for module in list(layers.modules()):
        for name, child in module.named_children():
            if isinstance(child, mmcv_drop.DropPath):
                setattr(module, name, DropPath(float(child.drop_prob)))
    return [[m for m in layer.modules() if isinstance(m, DropPath) and m.drop_prob] for layer in layers]


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
