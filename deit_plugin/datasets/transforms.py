"""Transforms: reading, with a random crop or whole, and the order of the channels."""

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.datasets.transforms import ResizeEdge
from mmpretrain.registry import TRANSFORMS

from .jpeg import choose_decoder, decode, describe_broken, read_header, resize
from .pieces import Pieces


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(BaseTransform):
    """Read, decode, crop, resize and flip an image.

    Stands for mmpretrain's ``LoadImageFromFile``, ``RandomResizedCrop`` and
    horizontal ``RandomFlip`` and draws from the same distribution, in less
    time. EXIF's rotation is ignored, as in the reference.

    JPEGs of 8 bits in grey or three colours are decoded by ``decoder``, each
    of which gives Pillow's values exactly; simplejpeg leaves out the rows
    below the crop. Pillow decodes all the rest, and decides about an image
    that the decoder refuses: what is broken is what Pillow calls broken. The crop is resized by
    torch with the arithmetic of 16 bits: beside Pillow's resize, horizontal
    pass first, 4 values in 1000 differ by one level, and about one in a
    million by two. (Pillow 13 begins with the vertical pass where that is
    faster, which differs from Pillow 12 by some levels at hard edges.)

    An image that is in memory already (``img``, BGR, as CIFAR's may be) is
    only cropped, resized and flipped.

    Required key: ``img_path`` or ``img``. Added keys: ``img``, (H, W, 3)
    uint8 BGR, a view of a (3, H, W) array so that ``PackInputs`` need not
    copy it; ``img_shape``, ``ori_shape``, ``flip`` and ``flip_direction``.

    Args:
        scale (int | Sequence[int]): Side, or height and width, of the result
            in pixels. Defaults to 224.
        crop_ratio_range (Sequence[float]): Range of the crop's area as a
            part of the image's, above 0 and up to 1. Defaults to (.08, 1).
        aspect_ratio_range (Sequence[float]): Range of the crop's width over
            height. Defaults to (3/4, 4/3).
        flip_prob (float): Probability of a flip, 0 to 1. Defaults to .5.
        decoder (str): ``'simplejpeg'``, ``'opencv'``, ``'pillow'``, or
            ``'auto'``: simplejpeg, or OpenCV where that is not installed.
            Defaults to ``'auto'``.
        broken (str): What is done with a broken image. ``'raise'``: an
            error. ``'resample'``: a warning in the log, and None, for which
            the dataset takes another sample; ``num_broken`` counts them, in
            each worker process for itself. A file that cannot be read is an
            error in any case. Defaults to ``'raise'``.
        on_device (str, optional): What is left to the device, where a worker
            fills whole batches (:class:`FillsBatches`). ``'resize'``: crops
            are sent at their own sizes. ``'decode'``: files are sent, and a
            GPU decodes them. See ``models.pieces`` for what differs.
            Defaults to None.

    Raises:
        ValueError: If an argument is out of range.
        ModuleNotFoundError: If ``decoder`` is not installed.
    """

    def __init__(
        self,
        scale: int | Sequence[int] = 224,
        crop_ratio_range: Sequence[float] = (0.08, 1.0),
        aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
        decoder: str = 'auto',
        broken: str = 'raise',
        on_device: str | None = None,
    ):
        self.size = (scale, scale) if isinstance(scale, int) else tuple(scale)
        if len(self.size) != 2 or not all(isinstance(s, int) and s > 0 for s in self.size):
            raise ValueError(f'scale={scale!r} must be a positive int or two, height and width')
        _check_range('crop_ratio_range', crop_ratio_range, 1)
        _check_range('aspect_ratio_range', aspect_ratio_range, math.inf)
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob={flip_prob!r} must be in [0, 1]')
        if broken not in ('raise', 'resample'):
            raise ValueError(f"broken={broken!r} is unknown: choose 'raise' or 'resample'")
        if on_device not in (None, 'resize', 'decode'):
            raise ValueError(f"on_device={on_device!r} is unknown: choose 'resize', 'decode' or None")
        self.on_device = on_device
        self.crop_ratio_range = tuple(crop_ratio_range)
        self.aspect_ratio_range = tuple(aspect_ratio_range)
        self.flip_prob = flip_prob
        self.decoder = choose_decoder(decoder)
        self.broken = broken
        self.num_broken = 0

    def crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Draw a crop.

        Args:
            height (int): Of the image in pixels.
            width (int): Likewise.

        Returns:
            tuple[int, int, int, int]: Top, left, height and width in pixels.
        """
        low, high = self.aspect_ratio_range
        for _ in range(10):
            area = np.random.uniform(*self.crop_ratio_range) * height * width
            ratio = math.exp(np.random.uniform(math.log(low), math.log(high)))
            w = round(math.sqrt(area * ratio))
            h = round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(height - h + 1)
                left = np.random.randint(width - w + 1)
                return top, left, h, w
        # The largest centre crop of a permitted ratio; one pixel at least.
        w = max(1, min(width, round(height * high)))
        h = max(1, min(height, round(width / low)))
        return (height - h) // 2, (width - w) // 2, h, w

    def _crop(self, image: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
        size = image.shape[:2]
        top, left, height, width = self.crop_box(*size)
        return image[top : top + height, left : left + width], size

    def _decode_crop(self, data: bytes) -> tuple[np.ndarray, tuple[int, int]]:
        """The crop, (H, W, 3) uint8 RGB, and the image's (height, width)."""
        header = read_header(data)
        if header is None:
            return self._crop(decode(data, None, self.decoder))
        size = header[:2]
        top, left, height, width = self.crop_box(*size)
        image = decode(data, header, self.decoder, top + height)
        return image[top : top + height, left : left + width], size

    def _load(self, path: str):
        data = fileio.get(path)
        try:
            return self._decode_crop(data)
        except Exception as error:  # Pillow's readers raise many kinds
            message = describe_broken(path, error)
            if self.broken == 'raise':
                raise OSError(message) from error
            self.num_broken += 1
            print_log(
                f'{message}. Another one is taken; {self.num_broken} broken so far in this process',
                logger='current',
                level=logging.WARNING,
            )
            return None

    def transform(self, results: dict) -> dict | None:
        """Load the image that ``results['img_path']`` names.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the image is broken, unless these are resampled.
        """
        if (loaded := self._load_crop(results)) is None:
            return None
        crop, ori_shape = loaded
        image, flip = self._finish(crop)
        results['img'] = image.permute(1, 2, 0).numpy()
        results['img_shape'] = results['img'].shape
        results['ori_shape'] = ori_shape
        results['flip'] = flip
        results['flip_direction'] = 'horizontal' if flip else None
        return results

    def load_into(self, out: torch.Tensor, results: dict) -> bool:
        """Write what :meth:`transform` gives as ``img`` into an array.

        Args:
            out (torch.Tensor): (3, H, W) uint8.
            results (dict): As for :meth:`transform`.

        Returns:
            bool: False if the image is broken and another one is to be taken.
        """
        if (loaded := self._load_crop(results)) is None:
            return False
        out.copy_(self._finish(loaded[0])[0])
        return True

    def send(self, pieces: Pieces, results: dict) -> bool:
        """Add to a batch what the device makes that image of.

        Args:
            pieces (Pieces): The batch.
            results (dict): As for :meth:`transform`.

        Returns:
            bool: As for :meth:`load_into`.
        """
        if self.on_device == 'decode' and 'img' not in results:
            data = fileio.get(results['img_path'])
            if (header := read_header(data)) is not None:
                pieces.add_file(data, self.crop_box(*header[:2]), self._draw_flip())
                return True
        if (loaded := self._load_crop(results)) is None:
            return False
        pieces.add_crop(loaded[0], self._draw_flip())
        return True

    def _load_crop(self, results: dict) -> tuple[np.ndarray, tuple[int, int]] | None:
        """The crop, (H, W, 3) uint8 RGB, and the image's (height, width)."""
        if 'img' in results:
            crop, size = self._crop(results['img'])
            return crop[..., ::-1].copy(), size
        return self._load(results['img_path'])

    def _finish(self, crop: np.ndarray) -> tuple[torch.Tensor, bool]:
        """The image, (3, H, W) uint8 BGR, and whether it is flipped."""
        flip = self._draw_flip()
        return resize(crop, self.size).flip((0, 2) if flip else 0), flip

    def _draw_flip(self) -> bool:
        return bool(np.random.random() < self.flip_prob)


def _check_range(name: str, values: Sequence[float], limit: float):
    if len(values) != 2 or not 0 < values[0] <= values[1] <= limit:
        raise ValueError(f'{name}={values!r} must be (min, max), above 0 and up to {limit}')


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read and decode a whole image, for evaluation, with Pillow's values in less time.

    As in the reference EXIF's rotation is ignored, and transparency dropped. An image that is in memory
    already (``img``), as mmpretrain's inferencers have it, stays as it is.

    Required key: ``img_path`` or ``img``. Added keys: ``img``, (H, W, 3) uint8 BGR, ``img_shape`` and
    ``ori_shape``.

    Args:
        decoder (str): As for :class:`LoadRandomResizedCrop`. Defaults to ``'auto'``.
    """

    def __init__(self, decoder: str = 'auto'):
        self.decoder = choose_decoder(decoder)

    def transform(self, results: dict) -> dict:
        """Load the image that ``results['img_path']`` names.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the image is broken.
        """
        if 'img' in results:
            return results
        data = fileio.get(results['img_path'])
        try:
            image = decode(data, read_header(data), self.decoder)
        except Exception as error:  # Pillow's readers raise many kinds
            raise OSError(describe_broken(results['img_path'], error)) from error
        results['img'] = np.ascontiguousarray(image[..., ::-1])
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


@TRANSFORMS.register_module()
class TorchResizeEdge(ResizeEdge):
    """mmpretrain's ``ResizeEdge`` with the resize of :class:`LoadRandomResizedCrop`, for evaluation.

    It stands for ``backend='pillow', interpolation='bicubic'`` in less time, where a level of difference in
    some values does not matter.

    Args:
        scale (int): The length of that edge in pixels.
        edge (str): ``'short'``, ``'long'``, ``'width'`` or ``'height'``. Defaults to ``'short'``.
    """

    def __init__(self, scale: int, edge: str = 'short'):
        super().__init__(scale, edge, backend='pillow', interpolation='bicubic')

    def _resize_img(self, results: dict) -> None:
        (width, height), image = results['scale'], results['img']
        results['scale_factor'] = width / image.shape[1], height / image.shape[0]
        results['img'] = resize(np.ascontiguousarray(image), (height, width)).permute(1, 2, 0).numpy()
        results['img_shape'] = height, width


@TRANSFORMS.register_module()
class ReverseChannels(BaseTransform):
    """From RGB to BGR or back.

    mmpretrain's CIFAR gives RGB images, but all that comes after takes an
    image for BGR.
    """

    def transform(self, results: dict) -> dict:
        """Reverse the channels of ``img``, (H, W, C)."""
        results['img'] = results['img'][..., ::-1]
        return results
