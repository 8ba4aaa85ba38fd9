"""Position embeddings of another grid, or with other tokens before the patches."""

import math

import torch
from mmengine.logging import print_log
from mmpretrain.models import resize_pos_embed


def position_tokens(num_positions: int, num_tokens: int) -> int:
    """How many positions stand before those of the patches, by their number alone.

    Args:
        num_positions (int): In all.
        num_tokens (int): Tokens before the patches.

    Returns:
        int: ``num_tokens`` if the rest fills a square, else 0.
    """
    num_patches = num_positions - num_tokens
    return num_tokens if num_patches > 0 and _is_square(num_patches) else 0


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number


def fit_pos_embed(
    pos_embed: torch.Tensor,
    given_tokens: int,
    own: torch.Tensor,
    own_tokens: int,
    own_grid: tuple[int, int],
    mode: str = 'bicubic',
    name: str = 'pos_embed',
) -> torch.Tensor:
    """Fit the position embeddings of a checkpoint to a model.

    Those of another grid are resized as facebookresearch/deit does it (without antialiasing, the
    patches alone). Where the model has a distillation token and the checkpoint none, its position
    keeps the model's value; the other way round it is left out.

    Args:
        pos_embed (torch.Tensor): The checkpoint's (1, T + N, C).
        given_tokens (int): T of the checkpoint: 1 (class), 2 (class, distillation) or, where the tokens have
            no positions, 0.
        own (torch.Tensor): The model's (1, T' + N', C).
        own_tokens (int): T' of the model.
        own_grid (tuple[int, int]): Patches along the height and the width of the model's image.
        mode (str): Of ``torch.nn.functional.interpolate``. Defaults to ``'bicubic'``.
        name (str): For messages.

    Returns:
        torch.Tensor: (1, T' + N', C).

    Raises:
        ValueError: If the grid is another one and not square, so that its sides are unknown, or if only one
            of the two has positions for its tokens.
    """
    if (given_tokens == 0) != (own_tokens == 0):
        raise ValueError(
            f'{name} has {pos_embed.shape[1]} positions, {given_tokens} of them of tokens, but the model has '
            f'{own_tokens} of tokens: DeiT has them, DeiTIII for the patches alone'
        )
    num_patches = pos_embed.shape[1] - given_tokens
    grid = _grid(num_patches, given_tokens, own_grid, mode, name)
    if given_tokens < own_tokens:
        position = own.detach()[:, 1:2].to(pos_embed)
        pos_embed = torch.cat([pos_embed[:, :1], position, pos_embed[:, 1:]], dim=1)
    elif given_tokens > own_tokens:
        pos_embed = torch.cat([pos_embed[:, :1], pos_embed[:, 2:]], dim=1)
    return resize_pos_embed(pos_embed, grid, own_grid, mode, own_tokens)


def _grid(num_patches: int, tokens: int, own: tuple[int, int], mode: str, name: str) -> tuple[int, int]:
    """Height and width of the checkpoint's grid."""
    if num_patches == own[0] * own[1]:
        if own[0] != own[1]:
            print_log(
                f'{name}: its {num_patches} positions are taken for a grid of {own[0]} x {own[1]}, as here',
                logger='current',
            )
        return own
    if not _is_square(num_patches):
        raise ValueError(
            f'{name} has {num_patches} patch positions, which make no square grid, so its height and '
            'width are unknown: build the model with the img_size that it was trained with'
            f'{_other_backbone(num_patches, tokens)}'
        )
    side = math.isqrt(num_patches)
    print_log(
        f'{name}: positions of a {side} x {side} grid resized ({mode}) to {own[0]} x {own[1]}',
        logger='current',
    )
    return side, side


def _other_backbone(num_patches: int, tokens: int) -> str:
    """Of the backbone that would read the positions as those of a square grid."""
    if tokens and _is_square(num_patches + tokens):
        return '; or take `DeiTIII`, if none of them is of a token'
    of_tokens = next((t for t in (1, 2) if not tokens and position_tokens(num_patches, t)), 0)
    return f'; or take `DeiT`, if {of_tokens} of them are of tokens' if of_tokens else ''
