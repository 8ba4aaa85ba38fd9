"""RandAugment for a whole batch of images, on the device they are on."""

import math
from collections.abc import Sequence
from numbers import Integral

import torch

from . import rand_augment_geometry, rand_augment_ops
from .batch_operations import BatchOperations, Plan

MAX_LEVEL = 10.0
NAMES = (  # in timm's order
    'AutoContrast',
    'Equalize',
    'Invert',
    'Rotate',
    'PosterizeIncreasing',
    'SolarizeIncreasing',
    'SolarizeAdd',
    'ColorIncreasing',
    'ContrastIncreasing',
    'BrightnessIncreasing',
    'SharpnessIncreasing',
    'ShearX',
    'ShearY',
    'TranslateXRel',
    'TranslateYRel',
)


class RandAugment(BatchOperations):
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

    From RandAugment, https://arxiv.org/abs/1909.13719.

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

    names = NAMES
    kinds = {**rand_augment_ops.KINDS, **rand_augment_geometry.KINDS}
    purpose = 'RandAugment'
    max_level = MAX_LEVEL

    def __init__(
        self,
        magnitude: float = 9.0,
        magnitude_std: float = 0.5,
        num_ops: int = 2,
        prob: float = 0.5,
        fill: Sequence[int] = (124, 116, 104),
    ):
        super().__init__(fill)
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

    def draw_part(self, number: int) -> Plan:
        """Draw a plan for the images of one virtual process, in four calls."""
        shape = self.num_ops, number
        ops = torch.randint(len(NAMES), shape)
        applied = torch.rand(shape) < self.prob
        noise = torch.randn(shape, dtype=torch.float64)
        levels = self.magnitude + self.magnitude_std * noise
        signs = torch.randint(2, shape).double() * 2 - 1
        return Plan(ops.where(applied, -1), levels.clamp(0, MAX_LEVEL), signs)
