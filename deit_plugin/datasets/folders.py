"""Data sets of image files, with errors that name the file or folder."""

import os.path as osp

from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.registry import DATASETS
from PIL import Image

from .jpeg import describe_broken


def broken_image(path: str) -> str:
    """What is wrong with an image file, by Pillow, in one line; empty if nothing is."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's readers raise many kinds
        return describe_broken(path, error)
    return ''


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's ``CustomDataset``, whose errors name a broken image, whatever loads it.

    Args:
        **kwargs: As for ``CustomDataset``.
    """

    def prepare_data(self, idx: int):
        """A sample; see mmengine's ``BaseDataset``.

        Raises:
            OSError: If the image is broken.
        """
        try:
            return super().prepare_data(idx)
        except FileNotFoundError:
            raise
        except Exception as error:  # each loader has its own
            path = self.get_data_info(idx).get('img_path')
            if path is not None and path not in str(error) and (broken := broken_image(path)):
                raise OSError(broken) from error
            raise


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
