"""The handwritten digits that scikit-learn ships."""

import os
import os.path as osp

import cv2
import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS


@DATASETS.register_module()
class Digits(BaseDataset):
    """1,797 real images of handwritten digits (UCI's test set of "Optical
    Recognition of Handwritten Digits"), no download needed.

    Images are (8, 8, 3) uint8, 0 to 255, three times the same grey. One in
    five, the same in every run, is in the test split.

    Args:
        split (str): ``'train'`` (1,437 images) or ``'test'`` (360).
        fraction (float): The part of each digit's images that there is, above 0 and up to 1, at least one of
            each. Defaults to 1.
        fraction_seed (int): Which ones these are. Defaults to 0.
        **kwargs: ``pipeline`` and further arguments of mmpretrain's
            ``BaseDataset``.

    Raises:
        ValueError: If the split is unknown, or the fraction out of range.
        ModuleNotFoundError: If scikit-learn is not installed.
    """

    METAINFO = dict(classes=tuple('0123456789'))

    def __init__(self, split: str, fraction: float = 1.0, fraction_seed: int = 0, **kwargs):
        if split not in ('train', 'test'):
            raise ValueError(f"split={split!r} is unknown: choose 'train' or 'test'")
        if not 0 < fraction <= 1:
            raise ValueError(f'fraction={fraction!r} must be above 0 and up to 1')
        self.split, self.fraction, self.fraction_seed = split, fraction, fraction_seed
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list:
        """One dict with ``img`` and ``gt_label`` for each image."""
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'The dataset Digits is inside scikit-learn, which is not '
                'installed: `pip install scikit-learn`'
            ) from error
        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        order = np.random.RandomState(0).permutation(len(images))
        test = len(images) // 5 + 1
        chosen = order[:test] if self.split == 'test' else order[test:]
        chosen = self._part(chosen, digits.target[chosen])
        return [
            dict(img=np.repeat(images[i, :, :, None], 3, axis=2), gt_label=int(digits.target[i]))
            for i in chosen
        ]

    def _part(self, chosen: np.ndarray, labels: np.ndarray) -> np.ndarray:
        if self.fraction == 1:
            return chosen
        generator = np.random.RandomState(self.fraction_seed)
        kept = []
        for digit in range(10):
            of_digit = generator.permutation(chosen[labels == digit])
            kept.extend(of_digit[: max(1, round(self.fraction * len(of_digit)))])
        return np.sort(kept)


def write_digits(folder: str) -> int:
    """Write the digits as PNG files, ``train/<digit>/*.png`` and ``val/<digit>/*.png``.

    Args:
        folder (str): A new folder, or an empty one.

    Returns:
        int: The number of images.

    Raises:
        FileExistsError: If there is something in the folder.
        OSError: If an image cannot be written.
    """
    if osp.exists(folder) and not (osp.isdir(folder) and not os.listdir(folder)):
        raise FileExistsError(f'{folder} is there already, and not an empty folder: name a new one')
    written = 0
    for name, split in (('train', 'train'), ('val', 'test')):
        for sample in Digits(split, pipeline=[]).load_data_list():
            path = osp.join(folder, name, str(sample['gt_label']), f'{written:04}.png')
            os.makedirs(osp.dirname(path), exist_ok=True)
            if not cv2.imwrite(path, sample['img']):
                raise OSError(f'{path} cannot be written')
            written += 1
    return written
