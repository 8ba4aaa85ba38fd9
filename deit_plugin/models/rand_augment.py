"""RandAugment for a whole batch of images, on the device they are on."""

import math
from collections.abc import Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import nn

from .rand_augment_ops import NAMES, OPERATIONS, apply_grouped

MAX_LEVEL = 10.0


class Plan(NamedTuple):
    """The operations drawn for a batch. The tensors are of shape (num_ops, B) and on
    the CPU, where reading them waits for no device.

    Args:
        ops (torch.Tensor): Indices into ``OPERATIONS``, int64; -1 for none.
        levels (torch.Tensor): In [0, 10], float64.
        signs (torch.Tensor): -1 or 1, float64. Like the level, it is without
            meaning for the operations that have none.
    """

    ops: torch.Tensor
    levels: torch.Tensor
    signs: torch.Tensor


class RandAugment(nn.Module):
    """timm's ``rand-m9-mstd0.5-inc1``, which DeiT's reference trains with.

    For every image ``num_ops`` of the 15 operations of timm's increasing set
    are drawn with replacement. Each is applied with probability ``prob``, at
    a level of its own from N(magnitude, magnitude_std) clipped to [0, 10].

    The results are Pillow's to the bit, but for the geometric operations.
    Those resample as Pillow does (bicubic with a=-1, truncated) in float32
    instead of float64: on average fewer than 1 value in 10,000 differs, by 1
    (translation at a level of exactly 10: 20 in 10,000 on a photo).
    ``PosterizeIncreasing`` at level 10 keeps no bit, so the image turns black
    as it did in the Pillow of DeiT's time; Pillow 13 refuses, and timm with
    it.

    All draws are from torch's global generator on the CPU, so
    ``torch.manual_seed`` fixes them whatever the device. Nothing is read back
    from the device. From RandAugment, https://arxiv.org/abs/1909.13719.

    Args:
        magnitude (float): The mean of the levels, in [0, 10]. Defaults to 9.
        magnitude_std (float): Their standard deviation before clipping, at
            least 0. Defaults to 0.5.
        num_ops (int): Operations drawn for an image, at least 1. Defaults
            to 2.
        prob (float): The probability that one that was drawn is applied, in
            [0, 1]. Defaults to 0.5.
        fill (Sequence[int]): The RGB colour of what comes from outside of the
            image, in [0, 255]. Defaults to ImageNet's mean.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        num_ops: int = 2,
        prob: float = 0.5,
        fill: Sequence[int] = (124, 116, 104),
    ):
        super().__init__()
        if not 0 <= magnitude <= MAX_LEVEL:
            raise ValueError(f'magnitude={magnitude} is not in [0, 10]')
        if not 0 <= magnitude_std < math.inf:
            raise ValueError(f'magnitude_std={magnitude_std} is not in [0, inf)')
        if not isinstance(num_ops, Integral) or num_ops < 1:
            raise ValueError(f'num_ops={num_ops} is not a positive integer')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} is not in [0, 1]')
        if len(fill) != 3 or not all(isinstance(v, Integral) and 0 <= v <= 255 for v in fill):
            raise ValueError(f'fill={fill} is not 3 integers in [0, 255]')
        self.magnitude = magnitude
        self.magnitude_std = magnitude_std
        self.num_ops = num_ops
        self.prob = prob
        self.fill = tuple(fill)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``apply_plan`` with a plan of its own."""
        _check(images)
        return self.apply_plan(images, self.draw(len(images)))

    def draw(self, batch_size: int) -> Plan:
        """Draw a plan for ``batch_size`` images, in four calls to
        torch's global generator on the CPU."""
        shape = self.num_ops, batch_size
        ops = torch.randint(len(OPERATIONS), shape)
        applied = torch.rand(shape) < self.prob
        noise = torch.randn(shape, dtype=torch.float64)
        levels = self.magnitude + self.magnitude_std * noise
        signs = torch.randint(2, shape).double() * 2 - 1
        return Plan(ops.where(applied, -1), levels.clamp(0, MAX_LEVEL), signs)

    def apply_plan(self, images: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Apply a plan to images.

        Args:
            images (torch.Tensor): RGB, uint8 of shape (B, 3, H, W).
            plan (Plan): For B images.

        Returns:
            torch.Tensor: As ``images``, in memory of its own.

        Raises:
            ValueError: If the images are of another dtype or shape, or the
                plan is for another number of them.
        """
        _check(images)
        if plan.ops.shape[1] != len(images):
            raise ValueError(f'the plan is for {plan.ops.shape[1]} images, not for {len(images)}')
        rows = list(images)
        for ops, levels, signs in zip(*plan):
            names = [NAMES[op] if op >= 0 else None for op in ops.tolist()]
            rows = apply_grouped(OPERATIONS, rows, names, levels / MAX_LEVEL, signs, self.fill)
        return torch.stack(rows) if rows else images.clone()


def _check(images):
    if images.dtype != torch.uint8:
        raise ValueError(f'images are of dtype {images.dtype}, not uint8')
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f'images are of shape {tuple(images.shape)}, not (B, 3, H, W)')
