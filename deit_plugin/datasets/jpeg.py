"""Decoding images as Pillow does it, in less time."""

import io
import math
import re
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

try:
    import simplejpeg
except ImportError:
    simplejpeg = None


# A byte of 255 among the data is followed by a zero.
_MARKER = re.compile(rb'\xff[^\x00\xff]')


class JPEG(NamedTuple):
    """What the header of a JPEG says: its size in pixels, where in the file the height and the scan are,
    and if all is in one scan from top to bottom."""

    height: int
    width: int
    height_at: int
    scan_at: int
    sequential: bool


def read_header(data: bytes) -> JPEG | None:
    """Read the header of a JPEG.

    Args:
        data (bytes): A file.

    Returns:
        JPEG | None: None if this is not a complete JPEG of 8 bits in grey or three colours.
    """
    if not data.startswith(b'\xff\xd8'):
        return None
    at, frame = 2, None
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (0xC0, 0xC1, 0xC2):
            frame = at
        elif marker == 0xDA:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
    else:
        return None
    # OpenCV before 5 gives a truncated image without a word. The search
    # begins here because a thumbnail in the metadata has an end marker, too.
    if frame is None or data.rfind(b'\xff\xd9', at) < 0:
        return None
    height = int.from_bytes(data[frame + 5 : frame + 7], 'big')
    width = int.from_bytes(data[frame + 7 : frame + 9], 'big')
    bits, channels = data[frame + 4], data[frame + 9]
    # Pillow refuses images so large that they can only be an attack.
    limit = Image.MAX_IMAGE_PIXELS or math.inf
    if bits != 8 or channels not in (1, 3) or not 0 < height * width <= limit:
        return None
    sequential = data[frame + 1] != 0xC2 and data[at + 4] == channels
    return JPEG(height, width, frame + 5, at, sequential)


def decode_simplejpeg(data: bytes, header: JPEG, bottom: int | None = None) -> np.ndarray:
    """Decode a JPEG with simplejpeg.

    Args:
        data (bytes): A JPEG.
        header (JPEG): What :func:`read_header` says about it.
        bottom (int, optional): How many rows are needed; the rest may be missing. Defaults to all.

    Returns:
        np.ndarray: (H, W, 3) uint8 in RGB.

    Raises:
        ValueError: If it cannot be decoded.
    """
    height, width = header[:2]
    if header.sequential and bottom is not None:
        # With a smaller height in the header the decoder stops there. The colours of the last row come
        # from the next row, too.
        height = min(height, bottom + 1)
        at = header.height_at
        data = data[:at] + height.to_bytes(2, 'big') + data[at + 2 :]
    image = np.empty((height, width, 3), np.uint8)
    try:
        simplejpeg.decode_jpeg(data, 'RGB', buffer=image)
    except ValueError as error:  # the image is there if it is a warning: of what is left of the file
        if height == header.height or 'extraneous bytes' not in str(error):
            raise
    return image


def decode_opencv(data, header, bottom=None) -> np.ndarray:
    """As :func:`decode_simplejpeg`, with OpenCV. All rows, because OpenCV prints a line about each
    image that has some left out, and no image with a marker in its scan, of which it says nothing."""
    marker = _MARKER.search(data, header.scan_at + 2)
    if header.sequential and marker and marker[0] != b'\xff\xd9':
        raise ValueError(f'a marker {marker[0].hex()} in its scan')
    mode = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if image is None:
        raise ValueError('OpenCV cannot decode it')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def decode_pillow(data, header=None, bottom=None) -> np.ndarray:
    """As :func:`decode_simplejpeg`, with Pillow: all rows, of any format. Raises what Pillow raises."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert('RGB'))


DECODERS = dict(simplejpeg=decode_simplejpeg, opencv=decode_opencv, pillow=decode_pillow)


def decode(data: bytes, header: JPEG | None, decoder: str, bottom: int | None = None) -> np.ndarray:
    """Decode an image of any format, with Pillow's values.

    Args:
        data (bytes): A file.
        header (JPEG, optional): Of :func:`read_header`; Pillow decodes what has none.
        decoder (str): One of ``DECODERS``. Pillow decides about an image that it refuses.
        bottom (int, optional): How many rows are needed; the rest may be missing. Defaults to all.

    Returns:
        np.ndarray: (H, W, 3) uint8 in RGB.

    Raises:
        Exception: What Pillow raises if the image is broken.
    """
    if not data:
        raise ValueError('the file is empty')
    if header is not None:
        try:
            return DECODERS[decoder](data, header, bottom)
        except (ValueError, OSError, cv2.error):
            pass
    return decode_pillow(data)


def choose_decoder(decoder: str) -> str:
    """A name of ``DECODERS``; ``'auto'`` is simplejpeg, or OpenCV where that is not installed.

    Raises:
        ValueError: If there is no such decoder.
        ModuleNotFoundError: If it is not installed.
    """
    if decoder != 'auto' and decoder not in DECODERS:
        raise ValueError(f"decoder={decoder!r} is unknown: choose 'auto' or one of {list(DECODERS)}")
    if simplejpeg is not None:
        return 'simplejpeg' if decoder == 'auto' else decoder
    if decoder == 'simplejpeg':
        raise ModuleNotFoundError("decoder='simplejpeg' needs `pip install simplejpeg`")
    return 'opencv' if decoder == 'auto' else decoder


def resize(image: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
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
        reason = 'Pillow does not know its format'
    else:
        reason = ' '.join(str(error).split()) or type(error).__name__
    return f'The image {path!r} is broken: {reason}'
