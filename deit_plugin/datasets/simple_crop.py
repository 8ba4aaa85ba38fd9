"""The simple random crop of DeiT III."""

import numpy as np
import torch
from mmpretrain.registry import TRANSFORMS

from .jpeg import resize
from .transforms import LoadRandomResizedCrop


@TRANSFORMS.register_module()
class LoadSimpleRandomCrop(LoadRandomResizedCrop):
    """Read, decode, resize, crop and flip an image: nearly all of it is seen, in its own proportions.

    The shorter side is resized to that of the result, the image is mirrored by some pixels beyond its edges,
    and a crop of it is taken at random (``--src`` of facebookresearch/deit at ``7e160fe``; arXiv 2204.07118,
    section 3). All else is as in :class:`LoadRandomResizedCrop`.

    Args:
        scale (int): Side of the result in pixels. Defaults to 224.
        padding (int): Pixels beyond each edge, at least 0 and below ``scale``. Defaults to 4.
        flip_prob (float): Probability of a flip, 0 to 1. Defaults to .5.
        decoder (str): As for :class:`LoadRandomResizedCrop`.
        broken (str): As for :class:`LoadRandomResizedCrop`.
        on_device (None): Nothing can be left to the device.

    Raises:
        ValueError: If an argument is out of range.
        ModuleNotFoundError: If ``decoder`` is not installed.
    """

    def __init__(
        self,
        scale: int = 224,
        padding: int = 4,
        flip_prob: float = 0.5,
        decoder: str = 'auto',
        broken: str = 'raise',
        on_device: None = None,
    ):
        if on_device is not None:
            raise ValueError(
                f'on_device={on_device!r}: the device makes the crops of LoadRandomResizedCrop alone, so '
                'LoadSimpleRandomCrop takes on_device=None'
            )
        super().__init__(scale, flip_prob=flip_prob, decoder=decoder, broken=broken)
        if not isinstance(scale, int):
            raise ValueError(f'scale={scale!r} must be one int: the crop is a square')
        if type(padding) is not int or not 0 <= padding < scale:
            raise ValueError(f'padding={padding!r} must be an int, at least 0 and below scale={scale}')
        self.padding = padding

    def crop_box(self, height: int, width: int) -> tuple[int, int, int, int]:
        """The whole image, of which a part is taken after it is resized. See the parent's."""
        return 0, 0, height, width

    def _finish(self, crop: np.ndarray) -> tuple[torch.Tensor, bool]:
        side, short = self.size[0], min(crop.shape[:2])
        height, width = (side * length // short for length in crop.shape[:2])
        image = resize(crop, (height, width)).numpy()
        around = np.pad(image, [(0, 0), (self.padding,) * 2, (self.padding,) * 2], 'reflect')
        top, left = (np.random.randint(length - side + 1) for length in around.shape[1:])
        flip = self._draw_flip()
        part = torch.from_numpy(around[:, top : top + side, left : left + side])
        return part.flip((0, 2) if flip else 0), flip


RANDOM_CROPS = LoadRandomResizedCrop, LoadSimpleRandomCrop
CROP_NAMES = tuple(crop.__name__ for crop in RANDOM_CROPS)
