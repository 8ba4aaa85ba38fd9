"""RandAugment for a whole batch of images, on the device they are on."""

import itertools
import math
from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import nn

from ..draws import parts
from . import rand_augment_geometry, rand_augment_ops
from .sending import send_all

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
KINDS = {**rand_augment_ops.KINDS, **rand_augment_geometry.KINDS}
# Of each name, the number of its kind, and its place there.
PLACES = {name: (i, k) for i, names in enumerate(KINDS.values()) for k, name in enumerate(names)}


class Plan(NamedTuple):
    """The operations drawn for a batch. The tensors are of shape (num_ops, B) and on
    the CPU, where reading them waits for no device.

    Args:
        ops (torch.Tensor): Indices into ``NAMES``, int64; -1 for none.
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
        """Draw a plan for ``batch_size`` images, in four calls to torch's
        global generator on the CPU for each virtual process."""
        plans = [self._draw(len(range(batch_size)[part])) for part in parts(batch_size, 'RandAugment')]
        return Plan(*(torch.cat(of_parts, 1) for of_parts in zip(*plans)))

    def _draw(self, batch_size: int) -> Plan:
        shape = self.num_ops, batch_size
        ops = torch.randint(len(NAMES), shape)
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
        size, tensors, steps = tuple(images.shape[2:]), [], []
        for kind, names, rounds, at in _steps(plan.ops.tolist()):
            drawn = plan.levels[rounds, at] / MAX_LEVEL, plan.signs[rounds, at]
            needed, function = kind(names, *drawn, size)
            steps.append((function, len(needed)))
            tensors += [torch.tensor(at), *needed]
        fill = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1)
        fill, *tensors = send_all([fill, *tensors], images.device)
        result, sent = images.clone(memory_format=torch.contiguous_format), iter(tensors)
        for function, count in steps:
            at, *needed = itertools.islice(sent, count + 1)
            done = function(result.index_select(0, at), fill, *needed)
            _wide(result).index_copy_(0, at, _wide(done))
        return result


def _wide(images):
    """In numbers of 8 bytes, if they fit: those are copied as fast as bytes, one by one."""
    rows = images.flatten(1)
    return rows if rows.shape[1] % 8 else rows.view(torch.int64)


def _steps(ops: list[list[int]]) -> Iterator[tuple]:
    """Which kind of operations is done, with their names, rounds and images. It goes through the kinds forth
    and back, whatever the round: so the last and dearest kind is done once for nearly all that have it."""
    waiting = {}  # of an image, its operations: number of the kind, place there, round
    for i, drawn in enumerate(zip(*ops)):
        if todo := [(*PLACES[NAMES[op]], r) for r, op in enumerate(drawn) if op >= 0]:
            waiting[i] = todo[::-1]
    kinds = list(KINDS.items())
    for number in itertools.cycle([*range(len(kinds)), *range(len(kinds) - 2, 0, -1)]):
        if not waiting:
            return
        at = [i for i, todo in waiting.items() if todo[-1][0] == number]
        if at:
            at.sort(key=lambda i: waiting[i][-1][1])
            done = [waiting[i].pop() for i in at]
            waiting = {i: todo for i, todo in waiting.items() if todo}
            kind, names = kinds[number]
            yield kind, [names[place] for _, place, _ in done], [r for *_, r in done], at


def _check(images):
    if images.dtype != torch.uint8:
        raise ValueError(f'images are of dtype {images.dtype}, not uint8')
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f'images are of shape {tuple(images.shape)}, not (B, 3, H, W)')
