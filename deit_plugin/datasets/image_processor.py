"""transformers' preparation of images."""

import math
import os.path as osp

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from ..json_file import read_json
from ..messages import shown


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_side(value) -> bool:
    return value is None or type(value) is int and 0 < value <= 8192


def _is_size(value) -> bool:
    return all(map(_is_side, value.values())) if isinstance(value, dict) else _is_side(value)


def _is_of_channels(value) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_is_number, value))


_SETTINGS = dict(
    size=_is_size,
    crop_size=_is_size,
    resample=lambda value: value in range(6),
    rescale_factor=_is_number,
    image_mean=_is_of_channels,
    image_std=lambda value: _is_of_channels(value) and 0 not in value,
)


@TRANSFORMS.register_module()
class DeiTImageProcessor(BaseTransform):
    """transformers' image processor of a checkpoint, for evaluation.

    Everything is read from the checkpoint's ``preprocessor_config.json``:
    both sides are resized (as transformers does on Pillow; its processor on
    torchvision differs by a level or two at hard edges), the centre is
    cropped, the values are scaled and normalised. The image leaves in RGB and
    normalised, as float32; :class:`DeiTDataPreprocessor` hands such images on
    as they are.

    In a pipeline it stands between ``LoadImageFromFile`` and ``PackInputs``.

    Args:
        path (str): The ``preprocessor_config.json``, or the folder in which
            it is. What it does not name is as in transformers: for
            ``DeiTImageProcessor`` both sides to 256 (bicubic) and a crop of
            224, for ``ViTImageProcessor`` 224 (bilinear) and no crop, with a
            mean and std of 0.5.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is of another processor, or names another kind of
            size.
    """

    _DEFAULTS = dict(
        DeiT=dict(size=dict(height=256, width=256), resample=3, do_center_crop=True),
        ViT=dict(size=dict(height=224, width=224), resample=2, do_center_crop=False),
    )

    def __init__(self, path: str):
        if osp.isdir(path):
            path = osp.join(path, 'preprocessor_config.json')
        if not osp.isfile(path):
            raise FileNotFoundError(
                f'There is no {path!r}: give the preprocessor_config.json of '
                'the checkpoint, or the folder in which it is'
            )
        given = read_json(path)
        if not isinstance(given, dict):
            raise ValueError(f'{path} holds no settings by name')
        kind = str(given.get('image_processor_type', given.get('feature_extractor_type', 'DeiT')))
        # DeiTFeatureExtractor, DeiTImageProcessorFast, ...
        kind = next((k for k in self._DEFAULTS if kind.startswith(k)), kind)
        if kind not in self._DEFAULTS:
            raise ValueError(f'{path} is of a {kind}: only {" and ".join(self._DEFAULTS)} are known here')
        self.cfg = {
            **dict(
                do_resize=True,
                crop_size=dict(height=224, width=224),
                do_rescale=True,
                rescale_factor=1 / 255,
                do_normalize=True,
                image_mean=[0.5] * 3,
                image_std=[0.5] * 3,
            ),
            **self._DEFAULTS[kind],
            **given,
        }
        if odd := [name for name, is_one in _SETTINGS.items() if not is_one(self.cfg[name])]:
            raise ValueError(f'{path} has an odd {odd[0]}: {shown(self.cfg[odd[0]])}')
        size = self.cfg['size']
        if self.cfg['do_resize'] and isinstance(size, dict):
            sides = {key for key, value in size.items() if value is not None}
            if sides not in ({'height', 'width'}, {'shortest_edge'}):
                raise ValueError(
                    f'{path} has the size {size}: only height and width, or shortest_edge, are known here'
                )

    def transform(self, results: dict) -> dict:
        """Process ``img``, (H, W, 3) in BGR and 0 to 255."""
        cfg = self.cfg
        image = Image.fromarray(results['img'][..., ::-1])
        if cfg['do_resize']:
            image = image.resize(self._resized(image.size), Image.Resampling(cfg['resample']))
        image = np.asarray(image)
        if cfg['do_center_crop']:
            image = _center_crop(image, *_height_width(cfg['crop_size']))
        image = image.astype(np.float32)
        if cfg['do_rescale']:
            image = image * np.float32(cfg['rescale_factor'])
        if cfg['do_normalize']:
            image = (image - np.float32(cfg['image_mean'])) / np.float32(cfg['image_std'])
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        return results

    def _resized(self, size: tuple) -> tuple:
        """Width and height after the resizing of an image of ``size``."""
        wanted = self.cfg['size']
        if isinstance(wanted, dict) and 'shortest_edge' in wanted:
            short = wanted['shortest_edge']
            return tuple(int(short * side / min(size)) for side in size)
        return _height_width(wanted)[::-1]


def _height_width(size) -> tuple:
    if isinstance(size, dict):
        return size['height'], size['width']
    return size, size


def _center_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The centre of an image, with a black border where it is smaller."""
    h, w = image.shape[:2]
    missing = max(height - h, 0), max(width - w, 0)
    image = np.pad(image, [(m // 2, m - m // 2) for m in missing] + [(0, 0)])
    h, w = image.shape[:2]
    top, left = (h - height) // 2, (w - width) // 2
    return image[top : top + height, left : left + width]
