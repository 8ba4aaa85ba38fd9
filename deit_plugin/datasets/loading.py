"""The part of the training augmentation that needs the image file."""
import io
import logging
import math
from typing import NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None


class JPEG(NamedTuple):
    """What the header of a JPEG says: its size in pixels, where in the file
    the height is, and if all is in one scan from top to bottom."""
    height: int
    width: int
    height_at: int
    sequential: bool


def read_header(data: bytes) -> Optional[JPEG]:
    """Read the header of a JPEG.

    Args:
        data (bytes): A file.

    Returns:
        JPEG | None: None if this is not a complete JPEG of 8 bits in grey or
            three colours.
    """
    if not data.startswith(b'\xff\xd8'):
        return None
    at, frame = 2, None
    while at + 10 <= len(data) and data[at] == 0xff:
        marker = data[at + 1]
        if marker == 0xff:  # a fill byte
            at += 1
            continue
        if marker in (0xc0, 0xc1, 0xc2):
            frame = at
        elif marker == 0xda:
            break
        at += 2 + int.from_bytes(data[at + 2:at + 4], 'big')
    else:
        return None
    # OpenCV before 5 gives a truncated image without a word. The search
    # begins here because a thumbnail in the metadata has an end marker, too.
    if frame is None or data.rfind(b'\xff\xd9', at) < 0:
        return None
    height = int.from_bytes(data[frame + 5:frame + 7], 'big')
    width = int.from_bytes(data[frame + 7:frame + 9], 'big')
    bits, channels = data[frame + 4], data[frame + 9]
    # Pillow refuses images so large that they can only be an attack.
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if bits != 8 or channels not in (1, 3) or not 0 < height * width <= limit:
        return None
    sequential = data[frame + 1] != 0xc2 and data[at + 4] == channels
    return JPEG(height, width, frame + 5, sequential)


def decode_simplejpeg(data: bytes,
                      header: JPEG,
                      denominator: int = 1,
                      bottom: Optional[int] = None) -> np.ndarray:
    """Decode a JPEG with simplejpeg.

    Args:
        data (bytes): A JPEG.
        header (JPEG): What :func:`read_header` says about it.
        denominator (int): 1, 2, 4 or 8, which divides the sides; they are
            rounded up.
        bottom (int, optional): How many rows are needed, in pixels of the
            result; the rest may be missing. Defaults to all.

    Returns:
        np.ndarray: (H, W, 3) uint8 in RGB.

    Raises:
        ValueError: If it cannot be decoded.
    """
    height, width = header[:2]
    if header.sequential and bottom is not None:
        # With a smaller height in the header the decoder stops there. The
        # colours of the last row come from the next row, too.
        height = min(height, (bottom + 1) * denominator)
        at = header.height_at
        data = data[:at] + height.to_bytes(2, 'big') + data[at + 2:]
    return simplejpeg.decode_jpeg(
        data,
        'RGB',
        min_height=-(-height // denominator),
        min_width=-(-width // denominator),
        min_factor=denominator,
        # What is left of the file would be an error.
        strict=height == header.height)


def decode_opencv(data, header, denominator=1, bottom=None) -> np.ndarray:
    """As :func:`decode_simplejpeg`, with OpenCV. All rows, because OpenCV
    prints a line about each image that has some left out."""
    mode = cv2.IMREAD_COLOR if denominator == 1 else getattr(
        cv2, f'IMREAD_REDUCED_COLOR_{denominator}')
    image = cv2.imdecode(
        np.frombuffer(data, np.uint8), mode | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError('OpenCV cannot decode it')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_pillow(data, header=None, denominator=1, bottom=None) -> np.ndarray:
    """As :func:`decode_simplejpeg`, with Pillow: all rows, of any format where
    there is no header. Raises what Pillow raises."""
    with Image.open(io.BytesIO(data)) as image:
        if denominator > 1:
            image.draft('RGB', (header.width // denominator,
                                header.height // denominator))
        return np.array(image.convert('RGB'))


DECODERS = dict(
    simplejpeg=decode_simplejpeg, opencv=decode_opencv, pillow=decode_pillow)


def resize(image: np.ndarray, size: Tuple[int, int]) -> torch.Tensor:
    """Bicubic with antialiasing, as Pillow's.

    Args:
        image (np.ndarray): (H, W, 3) uint8.
        size (tuple[int, int]): Height and width wanted, in pixels.

    Returns:
        torch.Tensor: (3, *size) uint8.
    """
    if torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512'):
        batch = torch.from_numpy(image).permute(2, 0, 1)[None]
        return F.interpolate(batch, size, mode='bicubic', antialias=True)[0]
    # Without these instructions torch is slower than Pillow. Pillow 13 would
    # choose the order of the passes.
    wide = Image.fromarray(image).resize((size[1], len(image)), Image.BICUBIC)
    resized = wide.resize(size[::-1], Image.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def describe_broken(path: str, error: Exception) -> str:
    """One line that names a broken image and what is wrong with it."""
    if isinstance(error, UnidentifiedImageError):
        reason = 'it is no image that Pillow knows'
    else:
        reason = ' '.join(str(error).split()) or type(error).__name__
    return f'The image {path!r} is broken: {reason}'


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(BaseTransform):
    """Read, decode, crop, resize and flip an image.

    Stands for mmpretrain's ``LoadImageFromFile``, ``RandomResizedCrop`` and
    horizontal ``RandomFlip`` and draws from the same distribution, in less
    time. EXIF's rotation is ignored, as in the reference.

    JPEGs of 8 bits in grey or three colours are decoded by ``decoder``, each
    of which gives Pillow's values exactly; simplejpeg leaves out the rows
    below the crop. Pillow decodes all the rest, and decides about an image
    that the decoder refuses. The crop is resized by
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
        scaled_decode (bool): Decode a JPEG at 1/2, 1/4 or 1/8 where the crop
            is then no smaller than the result, its edges rounded to pixels of
            that scale. Beside the same crop of the full image, photographs
            differ by 1 to 2.5 levels on average, and 99 of 100 values by no
            more than 16. Defaults to False.
        broken (str): What is done with a broken image. ``'raise'``: an
            error. ``'resample'``: a warning in the log, and None, for which
            the dataset takes another sample; ``num_broken`` counts them, in
            each worker process for itself. A file that cannot be read is an
            error in any case. Defaults to ``'raise'``.

    Raises:
        ValueError: If an argument is out of range.
        ModuleNotFoundError: If ``decoder`` is not installed.
    """

    def __init__(self,
                 scale: Union[int, Sequence[int]] = 224,
                 crop_ratio_range: Sequence[float] = (.08, 1.),
                 aspect_ratio_range: Sequence[float] = (3 / 4, 4 / 3),
                 flip_prob: float = .5,
                 decoder: str = 'auto',
                 scaled_decode: bool = False,
                 broken: str = 'raise'):
        size = (scale, scale) if isinstance(scale, int) else tuple(scale)
        if len(size) != 2 or not all(
                isinstance(side, int) and side > 0 for side in size):
            raise ValueError(f'scale={scale!r} must be a positive int or two, '
                             'height and width')
        ranges = (('crop_ratio_range', crop_ratio_range, 1),
                  ('aspect_ratio_range', aspect_ratio_range, math.inf))
        for name, values, limit in ranges:
            if len(values) != 2 or not 0 < values[0] <= values[1] <= limit:
                raise ValueError(f'{name}={values!r} must be (min, max), '
                                 f'above 0 and up to {limit}')
        if not 0 <= flip_prob <= 1:
            raise ValueError(f'flip_prob={flip_prob!r} must be in [0, 1]')
        if decoder != 'auto' and decoder not in DECODERS:
            raise ValueError(f'decoder={decoder!r} is unknown: choose '
                             f"'auto' or one of {list(DECODERS)}")
        if broken not in ('raise', 'resample'):
            raise ValueError(f"broken={broken!r} is unknown: choose 'raise' "
                             "or 'resample'")
        if decoder == 'simplejpeg' and simplejpeg is None:
            raise ModuleNotFoundError(
                "decoder='simplejpeg' needs `pip install simplejpeg`")
        if decoder == 'auto' and simplejpeg is None:
            print_log(
                'simplejpeg is not installed (`pip install simplejpeg`): '
                'OpenCV decodes the images',
                logger='current')
            decoder = 'opencv'
        elif decoder == 'auto':
            decoder = 'simplejpeg'
        self.size = size
        self.crop_ratio_range = tuple(crop_ratio_range)
        self.aspect_ratio_range = tuple(aspect_ratio_range)
        self.flip_prob = flip_prob
        self.decoder = decoder
        self.scaled_decode = scaled_decode
        self.broken = broken
        self.num_broken = 0

    def crop_box(self, height: int, width: int) -> Tuple[int, int, int, int]:
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

    def _crop(self, image: np.ndarray) -> Tuple[np.ndarray, Tuple[int, int]]:
        size = image.shape[:2]
        top, left, height, width = self.crop_box(*size)
        return image[top:top + height, left:left + width], size

    def _decode_crop(self,
                     data: bytes) -> Tuple[np.ndarray, Tuple[int, int]]:
        """The crop, (H, W, 3) uint8 RGB, and the image's (height, width)."""
        if not data:
            raise ValueError('the file is empty')
        header = read_header(data)
        if header is None:
            return self._crop(decode_pillow(data))
        size = header[:2]
        box = self.crop_box(*size)
        denominator = next(
            d for d in (8, 4, 2, 1)
            if d == 1 or self.scaled_decode and box[2] // d >= self.size[0]
            and box[3] // d >= self.size[1])
        top, left, bottom, right = (
            (edge + denominator // 2) // denominator
            for edge in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
        try:
            image = DECODERS[self.decoder](data, header, denominator, bottom)
        except (ValueError, OSError, cv2.error):
            image = decode_pillow(data, header, denominator)
        return image[top:bottom, left:right], size

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
                f'{message}. Another one is taken; {self.num_broken} broken '
                'so far in this process',
                logger='current',
                level=logging.WARNING)
            return None

    def transform(self, results: dict) -> Optional[dict]:
        """Load the image that ``results['img_path']`` names.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the image is broken, unless these are resampled.
        """
        if 'img' in results:
            crop, ori_shape = self._crop(results['img'])
            image = np.ascontiguousarray(crop[..., ::-1])
        elif (loaded := self._load(results['img_path'])) is None:
            return None
        else:
            image, ori_shape = loaded
        flip = bool(np.random.random() < self.flip_prob)
        # Channels from RGB to BGR; columns.
        image = resize(image, self.size).flip((0, 2) if flip else 0)
        results['img'] = image.permute(1, 2, 0).numpy()
        results['img_shape'] = results['img'].shape
        results['ori_shape'] = ori_shape
        results['flip'] = flip
        results['flip_direction'] = 'horizontal' if flip else None
        return results
