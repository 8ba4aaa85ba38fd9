"""The preparation of images in evaluation, as part of a graph."""

from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmcv.transforms import CenterCrop, Resize
from mmpretrain.datasets import PackInputs, ResizeEdge
from mmpretrain.models import ClsDataPreprocessor

from ..datasets import LoadImage, ReverseChannels

_KNOWN = (LoadImage, ReverseChannels, Resize, ResizeEdge, CenterCrop, PackInputs)


class ImagePreparation(nn.Module):
    """Resizes, crops and normalises images, with the values of Pillow or OpenCV.

    A resize is two products with a matrix of its filter's weights, one for each axis; cropping leaves out
    their rows. That needs no operator for antialiasing, which most runtimes lack. Pillow rounds after each of
    the two, OpenCV at the end. Pillow 13 begins with the height where that shrinks more than twice as much as
    the width, in pixels; here the width always comes first, so some of these pixels differ by a level.
    What lies beyond an image that is smaller than the crop is black.

    Args:
        transforms (Sequence): The built pipeline of a test: at most one ``Resize`` or ``ResizeEdge``, then at
            most one ``CenterCrop``.
        preprocessor (ClsDataPreprocessor): The model's.

    Raises:
        ValueError: If there is a transform that has no place here, or the size of the images that come out
            is not fixed.
    """

    def __init__(self, transforms: Sequence, preprocessor: ClsDataPreprocessor):
        super().__init__()
        _check(transforms, preprocessor)
        self.resize = next((t for t in transforms if isinstance(t, (Resize, ResizeEdge))), None)
        crop = next((t for t in transforms if isinstance(t, CenterCrop)), None)
        self.crop = crop and tuple(crop.crop_size[::-1])  # (height, width)
        if self.resize is None and self.crop is None:
            raise ValueError('The images are neither resized nor cropped: there is nothing to prepare')
        if isinstance(self.resize, ResizeEdge) and self.crop is None:
            raise ValueError('A resize of one side without a crop gives images of no fixed size')
        reversals = sum(isinstance(t, ReverseChannels) for t in transforms) + bool(preprocessor.to_rgb)
        self.to_bgr = reversals % 2 == 0  # LoadImage gives BGR, and here RGB comes in
        for name in ('mean', 'std'):
            self.register_buffer(name, getattr(preprocessor, name).clone(), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 RGB of any size to (B, 3, h, w) float32, as the model takes them."""
        height, width = images.shape[1], images.shape[2]
        sides = self._sides(height, width)
        y, x = (self._weights(*args) for args in zip((height, width), sides, self.crop or sides))
        pixels = images.permute(0, 3, 1, 2).float()
        pixels = F.linear(pixels, x)  # (B, 3, H, w)
        if self.resize is not None and self.resize.backend == 'pillow':
            pixels = _levels(pixels)
        pixels = _levels(F.linear(pixels.transpose(2, 3), y).transpose(2, 3))  # (B, 3, h, w)
        if self.to_bgr:
            pixels = pixels.flip(1)
        return (pixels - self.mean) / self.std

    def _sides(self, height: int, width: int) -> tuple:
        """Height and width after the resize."""
        if self.resize is None:
            return height, width
        if isinstance(self.resize, Resize):
            return tuple(self.resize.scale[::-1])
        scale = self.resize.scale
        edge = dict(width=width, height=height)
        shortest = edge.get(self.resize.edge)
        if shortest is None:
            pick = torch.sym_min if self.resize.edge == 'short' else torch.sym_max
            shortest = pick(height, width)
        return scale * height // shortest, scale * width // shortest

    def _weights(self, side: int, new: int, kept: int) -> torch.Tensor:
        """(kept, side): the weights of each pixel that is kept of ``new`` ones, from ``side`` ones."""
        spare = new - kept
        # As Python rounds half of it: to even.
        first = spare // 2 + (spare % 2) * (spare // 2 % 2)
        rows = torch.arange(kept, dtype=torch.float64)[:, None] + first
        columns = torch.arange(side, dtype=torch.float64)[None]
        if self.resize is None:
            return (rows == columns).float()
        weights = _pillow if self.resize.backend == 'pillow' else _opencv
        return weights(_FILTERS[self.resize.interpolation], rows, columns, side, new).float()


def _check(transforms: Sequence, preprocessor: ClsDataPreprocessor):
    kinds = [type(t) for t in transforms]
    if odd := [kind.__name__ for kind in kinds if kind not in _KNOWN]:
        raise ValueError(f'{", ".join(odd)} cannot be part of the graph: prepare the images outside of it')
    sizes = [kind for kind in kinds if kind in (Resize, ResizeEdge, CenterCrop)]
    if len(sizes) > 2 or len(sizes) == 2 and (sizes[0] is CenterCrop or sizes[1] is not CenterCrop):
        raise ValueError('Only one resize and then one crop can be part of the graph')
    for resize in (t for t in transforms if isinstance(t, (Resize, ResizeEdge))):
        if resize.interpolation not in _FILTERS or getattr(resize, 'keep_ratio', False) or not resize.scale:
            raise ValueError(f'{resize} cannot be part of the graph: bilinear and bicubic ones to a size can')
    if not getattr(preprocessor, '_enable_normalize', False) or preprocessor.pad_size_divisor > 1:
        raise ValueError('The data preprocessor does not normalise alone: prepare the images outside')


def _levels(pixels: torch.Tensor) -> torch.Tensor:
    """To whole levels as both libraries round: half up."""
    return (pixels + 0.5).floor().clamp(0, 255)


def _cubic(x: torch.Tensor, a: float) -> torch.Tensor:
    """Keys' cubic kernel; x is not negative."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _linear(x: torch.Tensor, a: float) -> torch.Tensor:
    return (1 - x).clamp(min=0)


# By mmcv's names: the kernel and half its width.
_FILTERS: dict[str, tuple[Callable, int]] = dict(bilinear=(_linear, 1), bicubic=(_cubic, 2))


def _pillow(kernel, rows: torch.Tensor, columns: torch.Tensor, side: int, new: int) -> torch.Tensor:
    """Antialiased; the weights inside the image are scaled to a sum of 1. The cubic one has a = -0.5."""
    weigh, support = kernel
    scale = _ratio(side, new)
    widened = scale.clamp(min=1)
    centre = (rows + 0.5) * scale
    first = (centre - support * widened + 0.5).floor()
    end = (centre + support * widened + 0.5).floor()
    weights = weigh(((columns + 0.5 - centre) / widened).abs(), -0.5)
    weights = torch.where((columns >= first) & (columns < end), weights, torch.zeros_like(weights))
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-6)


def _opencv(kernel, rows: torch.Tensor, columns: torch.Tensor, side: int, new: int) -> torch.Tensor:
    """Not antialiased; the image goes on beyond its border. The cubic one has a = -0.75."""
    weigh, support = kernel
    centre = (rows + 0.5) * _ratio(side, new) - 0.5
    weights = torch.zeros_like(centre + columns)
    for tap in range(1 - support, 1 + support):
        place = centre.floor() + tap
        inside = torch.minimum(place.clamp(min=0), _float(side) - 1)
        weight = weigh((place - centre).abs(), -0.75)
        weights = weights + torch.where(inside == columns, weight, torch.zeros_like(weights))
    return weights


def _ratio(side: int, new: int) -> torch.Tensor:
    return _float(side) / _float(new)


def _float(side: int) -> torch.Tensor:
    """(1, 1) float64 of a side that may be symbolic."""
    return torch.full((1, 1), side, dtype=torch.float64)
