"""Random erasing of a whole batch."""

import torch
from timm.data.random_erasing import RandomErasing

from ..draws import parts
from .sending import send_all


class BatchErasing(RandomErasing):
    """timm's ``RandomErasing`` with ``mode='pixel'``: at most one box of an image is filled with values from
    N(0, 1), each pixel and channel its own.

    timm draws the boxes, from Python's generator as ever. The values of all boxes are drawn and written at
    once, from the generator of the images' device: timm's two operations for each box are many on a GPU.

    Args:
        probability (float): The probability that an image has a box, in [0, 1].
    """

    def __init__(self, probability: float):
        # timm fills what stands for an image below with a constant, which costs little.
        super().__init__(probability, max_count=1, mode='const', device='cpu')

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Erase in images.

        Args:
            images (torch.Tensor): Of a floating-point type and shape (B, C, H, W). They are changed if they
                are contiguous.

        Returns:
            torch.Tensor: The images with their boxes, contiguous.
        """
        images = images.contiguous()
        shape, draw = images.shape[1:], super().__call__
        starts, widths, values = [], [], []
        for part in parts(len(images), 'erasing'):
            boxes = [(i, draw(_Image(shape)).box) for i in range(len(images))[part]]
            begin, width = _rows(boxes, shape)
            starts.append(begin), widths.append(width)
            values.append(torch.randn(int(width.sum()), dtype=images.dtype, device=images.device))
        starts, widths, values = torch.cat(starts), torch.cat(widths), torch.cat(values)
        if len(values):
            # From the number of a value among all those drawn to its place.
            gaps = starts - widths.cumsum(0) + widths
            gaps, widths = send_all([gaps, widths], images.device)
            at = gaps.repeat_interleave(widths, output_size=len(values))
            at += torch.arange(len(values), device=images.device)
            images.view(-1).scatter_(0, at, values)
        return images


class _Image:
    """Stands for an image in timm's erasing and keeps the box that timm fills, as slices, or None."""

    dtype = torch.float32

    def __init__(self, shape):
        self.shape, self.box = shape, None

    def size(self):
        return self.shape

    def __setitem__(self, box, values):
        self.box = box


def _rows(boxes, shape):
    """Of the boxes' rows in all channels, (n,), where they start in the batch and how wide they are."""
    channels, height, width = shape
    drawn = [
        (i, box[1].start, box[2].start, box[1].stop - box[1].start, box[2].stop - box[2].start)
        for i, box in boxes
        if box is not None
    ]
    drawn = torch.tensor(drawn, dtype=torch.int64).view(-1, 5)
    heights = drawn[:, 3]
    first = heights.cumsum(0) - heights
    image, top, left, _, widths = drawn.repeat_interleave(heights, 0).T
    row = top + torch.arange(len(top)) - first.repeat_interleave(heights)
    planes = image * channels + torch.arange(channels)[:, None]
    starts = (planes * height + row) * width + left
    return starts.flatten(), widths.expand_as(starts).flatten()
