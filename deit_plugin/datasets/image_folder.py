"""Images with one folder for each class, or by a list."""

import csv
import hashlib
import os.path as osp

from mmengine.fileio import get_file_backend, list_from_file
from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets.custom import find_folders, get_samples
from mmpretrain.registry import DATASETS
from PIL import Image

from ..messages import shown, some
from .filling import FillsBatches
from .jpeg import describe_broken

# What the header of a CSV may call the path and the class.
_COLUMNS = (
    ('path', 'image', 'file', 'filename', 'img_path', 'image_path', 'file_name'),
    ('class', 'label', 'category', 'gt_label', 'target', 'class_name'),
)


def broken_image(path: str) -> str:
    """What is wrong with an image file, by Pillow, in one line; empty if nothing is."""
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's readers raise many kinds
        return describe_broken(path, error)
    return ''


@DATASETS.register_module()
class ImageFolder(FillsBatches, CustomDataset):
    """Images with one folder for each class, or by a list.

    mmpretrain's ``CustomDataset``, with three differences. The error about a broken image names it, whatever
    loads it. A part of the images can be held out: of each class the same part, by a seed. A list may name
    the classes in words, and be CSV (``path,class``, with or without a header).

    Args:
        split (str, optional): Which side of the division: ``'train'`` or ``'val'``. Defaults to None: all
            images.
        val_fraction (float): The part of each class that is held out for ``'val'``, in (0, 1). At least one
            image of a class stays for each side where it has two. Defaults to 0.2.
        split_seed (int): Of the division. Defaults to 0.
        **kwargs: As for ``CustomDataset``. ``metainfo=dict(classes=...)`` gives the classes and their order;
            else they are those that are found, by name.

    Raises:
        FileNotFoundError: If there is no such folder or list.
        ValueError: If an argument is out of range, a class is not known, or there are no images.
    """

    def __init__(
        self,
        split: str | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        **kwargs,
    ):
        if split not in (None, 'train', 'val'):
            raise ValueError(f"split={split!r} is unknown: choose 'train', 'val' or None")
        if not 0 < val_fraction < 1:
            raise ValueError(f'val_fraction={val_fraction!r} must be above 0 and below 1')
        self.split, self.val_fraction, self.split_seed = split, val_fraction, split_seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """One dict with ``img_path`` and ``gt_label`` for each image."""
        if not self.with_label:
            return super().load_data_list()
        samples = read_list(self.ann_file) if self.ann_file else self._in_folders()
        if not samples:
            raise ValueError(
                f'There are no images in {self.ann_file or self.img_prefix!r}: there must be one folder of '
                f'them for each class ({", ".join(sorted(self.extensions))})'
            )
        classes = self.metainfo.get('classes') or classes_of({label for _, label in samples})
        self._metainfo['classes'] = tuple(classes)
        number = {str(name): i for i, name in enumerate(classes)}
        if self.ann_file and not {label for _, label in samples} <= number.keys():
            number = {str(i): i for i in range(len(classes))}
        if unknown := sorted({label for _, label in samples} - number.keys()):
            raise ValueError(
                f'{self.ann_file or self.img_prefix} has the classes {some(unknown)}, which are none of the '
                f'{len(classes)}: {some(classes)}'
            )
        if not (side := self._side(samples)):
            raise ValueError(
                f'{self.ann_file or self.img_prefix} has one image of each class: none can be held out'
            )
        backend = get_file_backend(self.img_prefix, enable_singleton=True)
        return [
            dict(img_path=backend.join_path(self.img_prefix, path), gt_label=number[label])
            for path, label in side
        ]

    def _in_folders(self) -> list[tuple[str, str]]:
        if '://' not in self.img_prefix and not osp.isdir(self.img_prefix):
            raise FileNotFoundError(
                f'There is no folder {self.img_prefix!r} ({osp.abspath(self.img_prefix)}), where the images '
                'should be, one folder of them for each class'
            )
        folders, by_name = find_folders(self.img_prefix)
        samples, empty = get_samples(self.img_prefix, by_name, self.is_valid_file)
        if samples and empty and not self.metainfo.get('classes'):
            raise ValueError(
                f'{self.img_prefix} has folders without images: {some(sorted(empty))}. Add some, or remove '
                'these folders'
            )
        return [(path, folders[label]) for path, label in samples]

    def _side(self, samples: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the split, in their order."""
        if self.split is None:
            return samples
        of_class: dict[str, list[str]] = {}
        for path, label in samples:
            of_class.setdefault(label, []).append(path)
        held_out = set()
        for label, paths in of_class.items():
            # By a draw for each image, so that one more moves no other from side to side but at the edge.
            paths = sorted(paths, key=lambda path: _draw(self.split_seed, label, path))
            number = round(self.val_fraction * len(paths))
            held_out.update(paths[: min(max(number, 1), len(paths) - 1)])
        return [sample for sample in samples if (sample[0] in held_out) == (self.split == 'val')]

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


def _draw(*place) -> bytes:
    return hashlib.blake2b('\0'.join(map(str, place)).encode(errors='surrogateescape')).digest()


def classes_of(labels: set[str]) -> list[str]:
    """The classes of labels: their names in order, or as many numbers as the largest says."""
    if all(label.isdecimal() for label in labels):
        return [str(i) for i in range(1 + max(map(int, labels)))]
    return sorted(labels)


def read_list(path: str) -> list[tuple[str, str]]:
    """A list of images.

    Args:
        path (str): A file of lines ``path label``, or of CSV (``.csv``), whose first line may be a header
            with columns such as ``path`` and ``class``.

    Returns:
        list[tuple[str, str]]: The path of each image, and its label as it stands there.

    Raises:
        FileNotFoundError: If there is no such list.
        ValueError: If a line has no label.
    """
    if '://' not in path and not osp.isfile(path):
        raise FileNotFoundError(f'There is no list of images {path!r} ({osp.abspath(path)})')
    lines = [line.strip() for line in list_from_file(path)]
    if path.lower().endswith('.csv'):
        rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
        columns = [name.lower() for name in rows[0]] if rows else []
        at = [next((i for i, c in enumerate(columns) if c in names), None) for names in _COLUMNS]
        if None not in at:
            rows = [[row[i] if i < len(row) else '' for i in at] for row in rows[1:]]
    else:
        rows = [line.rsplit(maxsplit=1) for line in lines if line]
    for number, row in enumerate(rows, 1):
        if len(row) < 2 or not row[0] or not row[1]:
            raise ValueError(f'{path}: the {number}. image has no label: {shown(row)}')
    return [(row[0], row[1]) for row in rows]
