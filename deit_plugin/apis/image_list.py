"""The images below a folder, and their labels."""

import os
import os.path as osp
import sys
from collections.abc import Sequence
from inspect import signature
from multiprocessing.pool import ThreadPool

from mmpretrain.datasets import CustomDataset
from timm.data import ImageNetInfo

from ..datasets.image_folder import broken_image
from ..messages import some

EXTENSIONS = signature(CustomDataset).parameters['extensions'].default


def list_images(data: str) -> dict[str, list[str]]:
    """The paths of the images of each class, below ``data``."""
    folder = osp.join(data, 'val')
    folder = folder if osp.isdir(folder) else data
    if not osp.isdir(folder):
        raise FileNotFoundError(f'--data {data!r} is not a folder')
    images = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir() and not entry.name.startswith('.'):
            images[entry.name] = sorted(
                osp.join(parent, file)
                for parent, _, files in os.walk(entry.path)
                for file in files
                if file.lower().endswith(EXTENSIONS)
            )
    names = [path for paths in images.values() for path in paths]
    if odd := [ascii(name) for name in names if not _is_utf8(name) or '\n' in name]:
        raise ValueError(f'File names that are not lines of UTF-8 cannot be listed, rename them: {some(odd)}')
    if not names:
        raise ValueError(
            f'{folder} holds no images: there must be one folder of them a class ({", ".join(EXTENSIONS)})'
        )
    return images


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def labels_of(folders: Sequence[str], num_classes: int, classes: Sequence[str] = ()) -> list[int]:
    """The label of each folder, by the names of the classes if these are known."""
    if set(folders) <= set(classes):
        return [list(classes).index(folder) for folder in folders]
    imagenet = ImageNetInfo('imagenet-1k').label_names()
    if num_classes == len(imagenet) and set(folders) <= set(imagenet):
        return [imagenet.index(folder) for folder in folders]
    if classes:
        raise ValueError(
            f'the model knows the classes {some(classes)}, but there are folders of other names '
            f'({some([f for f in folders if f not in classes])})'
        )
    if len(folders) == num_classes:
        return list(range(num_classes))
    raise ValueError(
        f'the model has {num_classes} classes, but there are {len(folders)} '
        f'folders ({some(folders)}), not all of which are named as those of '
        'ImageNet-1k'
    )


def leave_out_broken(images: dict[str, list[str]], workers: int) -> list[str]:
    """Take the broken images out of the lists; returns a line about each."""
    broken = []
    with ThreadPool(max(1, workers)) as pool:
        for name, paths in images.items():
            reasons = pool.map(broken_image, paths)
            images[name] = [path for path, reason in zip(paths, reasons) if not reason]
            broken += [reason for reason in reasons if reason]
    for reason in broken:
        print(f'{reason}. It is left out', file=sys.stderr)
    print(f'{len(broken)} broken images are left out', file=sys.stderr)
    if not any(images.values()):
        raise ValueError('All images are broken')
    return broken
