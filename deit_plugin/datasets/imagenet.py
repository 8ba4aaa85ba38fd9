"""ImageNet."""

import logging
import os
import os.path as osp
from collections.abc import Iterator

import numpy as np
from mmengine.fileio import join_path, list_from_file
from mmengine.logging import print_log
from mmpretrain.datasets import ImageNet
from mmpretrain.registry import DATASETS

from ..first_process import of_the_first
from ..messages import some
from .filling import FillsBatches


@DATASETS.register_module()
class ImageNet1k(FillsBatches, ImageNet):
    """mmpretrain's ``ImageNet`` with a short start, which says how to prepare the data where these are
    missing.

    Of an image it keeps its path below the folder and its label, as bytes; mmpretrain pickles a dictionary
    with the whole path for each of 1.3 million. Order and labels are mmpretrain's.

    Args:
        **kwargs: As for ``ImageNet``.

    Raises:
        FileNotFoundError: If the folder of the images does not exist.
        ValueError: If it has no images, or another number of classes.
    """

    def load_data_list(self) -> list[bytes]:
        """The images, each as its path below the folder, its label, and a zero byte behind both.

        Of several processes the first one lists for all, so all must call it, as mmengine's runner does.
        """
        records, self.folder_to_idx = of_the_first(self._read)
        self._check_folder()
        return records

    def _check_folder(self):
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

    def _read(self) -> tuple[list[bytes], dict[str, int]]:
        """The records, and the label of each folder."""
        self._check_folder()
        self.folder_to_idx: dict[str, int] = {}
        samples: Iterator[tuple[str, object]]
        if not self.ann_file and self.with_label and '://' not in self.img_prefix:
            samples = self._listed()
        else:
            lines = list_from_file(self.ann_file) if self.ann_file else self._find_samples()
            samples = map(self._of_line, lines)
        records = [f'{name}\0{label}\0'.encode(errors='surrogateescape') for name, label in samples]
        return records, self.folder_to_idx

    def _of_line(self, line) -> tuple[str, object]:
        if not self.with_label:
            return line, None
        name, label = line.strip().rsplit(' ', 1) if isinstance(line, str) else line
        return name, int(label)

    def _listed(self) -> Iterator[tuple[str, int]]:
        root = self.img_prefix
        with os.scandir(root) as entries:
            folders = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith('.'))
        if self.CLASSES is not None and len(folders) != len(self.CLASSES):
            raise ValueError(
                f'{root!r} has {len(folders)} folders, but there are {len(self.CLASSES)} classes: there '
                'must be one for each'
            )
        self.folder_to_idx = {folder: label for label, folder in enumerate(folders)}
        empty = []
        for label, folder in enumerate(folders):
            names = sorted(self._below(osp.join(root, folder), folder))
            yield from ((name, label) for name in names)
            if not names:
                empty.append(folder)
        if len(empty) == len(folders):
            raise ValueError(f'{root!r} has no images ({", ".join(self.extensions)}) in its folders')
        if empty:
            print_log(f'No images in {some(empty)} of {root}', logger='current', level=logging.WARNING)

    def _below(self, path: str, name: str) -> Iterator[str]:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith('.'):
                    continue
                if entry.is_dir():
                    yield from self._below(entry.path, f'{name}/{entry.name}')
                elif self.is_valid_file(entry.name) and entry.is_file():
                    yield f'{name}/{entry.name}'

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        """All of them in one array, and where each ends."""
        ends = np.cumsum([len(record) for record in self.data_list])
        joined = np.frombuffer(b''.join(self.data_list), np.uint8)
        self.data_list.clear()
        return joined, ends

    def get_data_info(self, idx: int) -> dict:
        """As the parent's: ``img_path``, ``gt_label`` and ``sample_idx``."""
        if not self._fully_initialized:
            self.full_init()
        number = range(len(self))[idx]
        if self.serialize_data:
            start = self.data_address[number - 1] if number else 0
            record = self.data_bytes[start : self.data_address[number]].tobytes()
        else:
            record = self.data_list[number]
        name, label, _ = record.decode(errors='surrogateescape').split('\0')
        join = join_path if '://' in self.img_prefix else osp.join
        info = dict(img_path=join(self.img_prefix, name), sample_idx=number)
        return {**info, 'gt_label': int(label)} if self.with_label else info

    @property
    def listing(self) -> memoryview | bytes:
        """All that :meth:`load_data_list` gives, in a row."""
        if not self._fully_initialized:
            self.full_init()
        return self.data_bytes.data if self.serialize_data else b''.join(self.data_list)
