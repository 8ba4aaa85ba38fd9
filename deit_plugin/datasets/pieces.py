"""Batches of crops at their own sizes, or of whole files, which the device turns into images."""

import numpy as np
import torch

from .collate import empty_to_send


class Pieces:
    """A batch as a worker sends it.

    Args:
        size (tuple[int, int]): Height and width of the images that are made of it, in pixels.
    """

    def __init__(self, size: tuple[int, int]):
        self.size = size
        self._parts: list[np.ndarray] = []
        self._rows: list[tuple[int, ...]] = []

    def add_crop(self, crop: np.ndarray, flip: bool):
        """Add a crop, (H, W, 3) uint8 RGB."""
        height, width = crop.shape[:2]
        self._add(crop.reshape(-1), (height, width, 0, 0, height, width, flip))

    def add_file(self, data: bytes, box: tuple[int, int, int, int], flip: bool):
        """Add a JPEG, and the crop that is wanted of it: top, left, height and width in pixels."""
        self._add(np.frombuffer(bytearray(data), np.uint8), (0, 0, *box, flip))

    def _add(self, part: np.ndarray, row: tuple[int, ...]):
        self._parts.append(part)
        self._rows.append((part.size, *row))

    def batch(self) -> dict:
        """``pieces``, the bytes of all images in a row, ``boxes``, (B, 8) int64, and ``size``.

        A row of the boxes is: bytes; height and width of what is sent, 0 for a file; top, left, height and
        width of the crop in it, in pixels; whether it is flipped.
        """
        pieces = empty_to_send(sum(part.size for part in self._parts))
        for piece, part in zip(pieces.split([part.size for part in self._parts]), self._parts):
            piece.copy_(torch.from_numpy(part))
        return dict(pieces=pieces, boxes=torch.tensor(self._rows), size=self.size)
