"""What a conversion writes: the bytes of a file or of a folder, and where they go."""

import io
import os
import os.path as osp
import shutil
import tempfile
import uuid

import torch
from safetensors.torch import save

from ..checkpoints.atomic import write_whole
from ..checkpoints.names import Weights
from ..checkpoints.reading import DIGEST, digest
from ..messages import some
from .transformers_config import PROCESSOR

_FOLDER = {'config.json', 'model.safetensors', PROCESSOR}


def mmpretrain_file(weights: Weights, classes: list[str]) -> bytes:
    """A checkpoint as mmengine reads it, with the names of the classes, if they are known."""
    meta: dict = {DIGEST: digest(weights)}
    if classes:
        meta['dataset_meta'] = dict(classes=classes)
    return saved(dict(state_dict=weights, meta=meta))


def timm_file(weights: Weights, target: str) -> bytes:
    """As timm reads it: safetensors, if the name says so."""
    return safetensors(weights) if target.endswith('.safetensors') else saved(weights)


def saved(content) -> bytes:
    """A file of PyTorch."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def safetensors(weights: Weights) -> bytes:
    """A file of safetensors, with the SHA-256 of its weights."""
    return save(weights, {'format': 'pt', DIGEST: digest(weights)})


def check_target(target: str, to: str, force: bool):
    """Raise a FileExistsError if what is there is not to be replaced."""
    if not osp.lexists(target):
        return
    if not force:
        raise FileExistsError(f'{target} is there already: choose another name, or replace it with --force')
    if osp.isdir(target) != (to == 'transformers'):
        raise FileExistsError(
            f'{target} is {"a" if osp.isdir(target) else "no"} folder, and '
            f'--to {to} writes a '
            f'{"folder" if to == "transformers" else "file"}: choose another '
            'name'
        )
    if osp.isdir(target):
        _check_folder(target)


def write_folder(target: str, files: dict[str, bytes]):
    """Write a folder as a whole.

    A kill may leave a folder ``.tmp`` beside the target, or ``.old``, which is what was to be replaced.
    """
    parent, name = osp.split(osp.abspath(target))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory('.tmp', name, parent) as scratch:
        new, old = osp.join(scratch, 'new'), f'{target}.{uuid.uuid4().hex}.old'
        for file, content in files.items():
            write_whole(osp.join(new, file), content)
        if osp.isdir(target):  # os.replace takes no folder with files
            os.rename(target, old)
        try:
            if osp.isdir(old):  # nobody writes into it any more
                _check_folder(old)
            os.replace(new, target)
        except BaseException:
            if osp.isdir(old):
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _check_folder(folder: str):
    """Whether it holds no more than what is replaced."""
    other = [
        e.name for e in os.scandir(folder) if e.name not in _FOLDER or not e.is_file(follow_symlinks=False)
    ]
    if other:
        raise FileExistsError(
            f'{folder} is not replaced, for it holds other files too: {some(sorted(other))}'
        )
