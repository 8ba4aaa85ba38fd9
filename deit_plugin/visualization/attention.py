"""Where the class token and the distillation token look."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..models import DeiT


class Attention(NamedTuple):
    """The attention from the tokens to the patches. T is 1 (class) or 2 (class, distillation), h x w the grid
    of patches.

    heads (B, M, T, h, w): each of the M heads of the last layer; what a token gives to all tokens sums to 1.
    mean (B, T, h, w): the mean of these.
    rollout (B, T, h, w): attention rollout over all layers (Abnar and Zuidema 2020, arXiv 2005.00928).
    """

    heads: torch.Tensor
    mean: torch.Tensor
    rollout: torch.Tensor


@torch.no_grad()
def attention_maps(backbone: DeiT, images: torch.Tensor) -> Attention:
    """The attention of a DeiT, from the queries and keys of its layers; no layer is changed.

    For the rollout each layer's attention is the mean of its heads, half of it replaced by the identity, for
    the residual connection; the layers are multiplied.

    Args:
        backbone (DeiT): Of any size; in evaluation mode, on the device of the images.
        images (torch.Tensor): As for its ``forward``, (B, 3, H, W).

    Raises:
        ValueError: If the backbone is not a :class:`DeiT`, or in training mode.
    """
    _check(backbone)
    rolled = last = None
    with _inputs_of(backbone, 'attn') as inputs:
        backbone(images)
    for layer, x in zip(backbone.layers, inputs):
        last = _weights(layer.attn, x)  # (B, M, N, N)
        mean = last.mean(dim=1)
        mean = (mean + torch.eye(mean.shape[-1], device=mean.device, dtype=mean.dtype)) / 2
        rolled = mean if rolled is None else mean @ rolled
    tokens = backbone.num_extra_tokens
    grid = tuple(side // patch for side, patch in zip(images.shape[-2:], backbone.patch_size))
    heads = last[:, :, :tokens, tokens:].unflatten(-1, grid)
    return Attention(heads, heads.mean(dim=1), rolled[:, :tokens, tokens:].unflatten(-1, grid))


@torch.no_grad()
def token_similarity(backbone: DeiT, images: torch.Tensor) -> torch.Tensor:
    """The cosine similarity of class and distillation token (arXiv 2012.12877, section 4).

    Args:
        backbone (DeiT): A distilled one, in evaluation mode.
        images (torch.Tensor): As for its ``forward``, (B, 3, H, W).

    Returns:
        torch.Tensor: (L + 1, ): of the learned tokens themselves, then of what each of the L layers gives,
        the mean over the images.

    Raises:
        ValueError: If there is no distillation token.
    """
    _check(backbone)
    if not backbone.distilled:
        raise ValueError('Only a distilled DeiT has two tokens to compare')
    with _inputs_of(backbone, None) as inputs, _inputs_of(backbone, 'ln1', whole=True) as last:
        backbone(images)
    pairs = [(x[:, 0], x[:, 1]) for x in [*inputs[1:], last[0]]]
    learned = backbone.cls_token[:, 0], backbone.dist_token[:, 0]
    return torch.stack([F.cosine_similarity(*pair).mean() for pair in [learned, *pairs]])


def _check(backbone):
    if not isinstance(backbone, DeiT):
        raise ValueError(
            f'The tokens of a DeiT are looked at, but the backbone is a {type(backbone).__name__}'
        )
    if backbone.training:
        raise ValueError(
            'The backbone is in training mode, where its last layer leaves out the patches: eval()'
        )


@contextmanager
def _inputs_of(backbone: DeiT, part: str | None, whole: bool = False) -> Iterator[list[torch.Tensor]]:
    """What a part of each layer, or of the backbone as a whole, is given in a forward pass."""
    owners = [backbone] if whole else list(backbone.layers)
    modules = [owner if part is None else getattr(owner, part) for owner in owners]
    found: list[torch.Tensor] = []
    handles = [m.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0])) for m in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _weights(attn, x: torch.Tensor) -> torch.Tensor:
    """The attention (B, M, N, N) for the input (B, N, C) of mmpretrain's attention."""
    batch, length, _ = x.shape
    qkv = attn.qkv(x).reshape(batch, length, 3, attn.num_heads, attn.head_dims).permute(2, 0, 3, 1, 4)
    q, k, _ = qkv.unbind(0)
    return (q @ k.transpose(-2, -1) * attn.head_dims**-0.5).softmax(dim=-1)
