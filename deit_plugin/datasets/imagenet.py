"""ImageNet."""

import os.path as osp

from mmpretrain.datasets import ImageNet
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class ImageNet1k(ImageNet):
    """mmpretrain's ``ImageNet``, which says how to prepare the data where
    they are missing.

    Args:
        **kwargs: As for ``ImageNet``.

    Raises:
        FileNotFoundError: If the folder of the images does not exist.
    """

    def full_init(self):
        """Read the list of images."""
        folder = self.img_prefix
        if '://' not in folder and not osp.isdir(folder):
            raise FileNotFoundError(
                f'ImageNet is not at {folder!r} ({osp.abspath(folder)}). '
                'Download ILSVRC2012 from https://image-net.org and unpack '
                'it so that each class is a folder of train/ and of val/: '
                'data/imagenet/train/n01440764/*.JPEG, data/imagenet/val/'
                'n01440764/*.JPEG. If it lies elsewhere, link the folder: '
                '`mkdir -p data && ln -s FOLDER data/imagenet`'
            )
        super().full_init()
