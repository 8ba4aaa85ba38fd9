"""Images to trace an exported program with, and to compare it by."""

import os.path as osp
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from .predict import Predictor

PHOTOS = ((300, 400), (500, 375))  # height and width, in pixels


class Sample(NamedTuple):
    """A batch of images.

    prepared (torch.Tensor): (B, 3, H, W), as the model takes them.
    given (torch.Tensor): As the program takes them: the same, or (B, H, W, 3) uint8 RGB.
    """

    prepared: torch.Tensor
    given: torch.Tensor


class Samples:
    """Images for a program.

    Args:
        predictor (Predictor): It prepares them.
        whole (bool): Whether the program takes images that are not prepared.
        dynamic (Sequence[str]): Of ``'batch'`` and ``'size'``, what it leaves free.
    """

    def __init__(self, predictor: Predictor, whole: bool, dynamic: Sequence[str]):
        self.predictor, self.whole, self.dynamic = predictor, whole, dynamic
        self.shape = tuple(self._photos(1, *PHOTOS[0]).prepared.shape[1:])  # (3, H, W)

    def read(self, paths: Sequence[str]) -> Sample:
        """Image files, for whole images all of one size."""
        prepared = self.predictor.prepare(paths)
        if not self.whole:
            return Sample(prepared, prepared)
        load = self.predictor.pipeline.transforms[0]  # it gives BGR
        pixels = np.stack([load(dict(img_path=path))['img'][..., ::-1] for path in paths])
        return Sample(prepared, torch.from_numpy(pixels))

    def example(self) -> torch.Tensor:
        """To trace with: of a free batch two, since torch takes 1 for a constant, and of a free size another
        than the model's."""
        channels, height, width = self.shape
        batch = 2 if 'batch' in self.dynamic else 1
        if self.whole:
            return torch.zeros(batch, *PHOTOS[0], 3, dtype=torch.uint8)
        if 'size' in self.dynamic:
            height, width = 2 * height, 3 * width
        return torch.zeros(batch, channels, height, width)

    def compared(self) -> Iterator[Sample]:
        """One batch of each number and size that the program must take."""
        for batch in (1, 2, 3) if 'batch' in self.dynamic else (1,):
            if self.whole:
                yield from (self._photos(batch, *size) for size in PHOTOS)
            else:
                yield from (self._noise(batch, *size) for size in self._sizes())

    def _sizes(self) -> Sequence[tuple[int, int]]:
        _, height, width = self.shape
        if 'size' not in self.dynamic:
            return [(height, width)]
        rows, columns = self.predictor.model.backbone.patch_size
        return [(height, width), (2 * height, 2 * width), (height + rows, width), (2 * rows, 3 * columns)]

    def _noise(self, batch: int, height: int, width: int) -> Sample:
        generator = torch.Generator().manual_seed(batch)
        images = torch.randn(batch, self.shape[0], height, width, generator=generator)
        return Sample(images, images)

    def _photos(self, batch: int, height: int, width: int) -> Sample:
        with tempfile.TemporaryDirectory() as scratch:
            paths = [osp.join(scratch, f'{i}.png') for i in range(batch)]
            for seed, path in enumerate(paths):
                Image.fromarray(_photo(height, width, seed)).save(path)
            return self.read(paths)


def _photo(height: int, width: int, seed: int) -> np.ndarray:
    """(H, W, 3) uint8: coarse colours with fine ones over them."""
    draw = np.random.RandomState(seed)
    coarse = Image.fromarray(draw.randint(0, 256, (8, 8, 3), dtype=np.uint8)).resize((width, height))
    return np.clip(np.asarray(coarse) + draw.randint(-20, 21, (height, width, 3)), 0, 255).astype(np.uint8)
