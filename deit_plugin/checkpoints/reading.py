"""Readers for what mmengine cannot read: safetensors, HDF5, shards and folders.

What a file is shows in its content, not in its name.
"""

import glob
import hashlib
import os.path as osp
import re
from collections.abc import Callable, Mapping

import torch
from safetensors import safe_open

from ..json_file import read_json
from ..messages import some
from .names import Weights
from .pytorch_file import check_pytorch, read_pytorch

DIGEST = 'weights_sha256'  # in the metadata of what this package writes

_DEEPEST_GROUP = 30  # of HDF5
# What transformers calls its files, in the order in which they are taken.
FOLDER_FILES = (
    'model.safetensors.index.json',
    'model.safetensors',
    'pytorch_model.bin.index.json',
    'pytorch_model.bin',
    'tf_model.h5',
)


def file_in(path: str) -> str:
    """The file to read: ``path`` itself, the weights in a folder of transformers, or in a work folder of
    mmengine the best checkpoint, else the last.

    Raises:
        FileNotFoundError: If there is no such file, or none in the folder.
    """
    found = osp.expanduser(path)
    if osp.isdir(found):
        files = [osp.join(found, name) for name in FOLDER_FILES]
        files += sorted(glob.glob(osp.join(glob.escape(found), 'best_*.pth')), key=osp.getmtime, reverse=True)
        files += _last_of(found)
        files = [file for file in files if osp.isfile(file)]
        if not files:
            raise FileNotFoundError(
                f'{found} is a folder without weights: it has none of {", ".join(FOLDER_FILES)}, and no '
                'training saved any there'
            )
        return files[0]
    if not osp.isfile(found):
        raise FileNotFoundError(f'There is no checkpoint {path!r} ({osp.abspath(found)})')
    return found


def _last_of(folder: str) -> list[str]:
    """The last checkpoint of a work folder, which may have been moved."""
    if not osp.isfile(pointer := osp.join(folder, 'last_checkpoint')):
        return []
    with open(pointer, encoding='utf-8', errors='surrogateescape') as file:
        return [osp.join(folder, osp.basename(file.read(4096).strip()))]


def reader_of(path: str) -> Callable[[str], Weights] | None:
    """The function that reads a file, or None for one of PyTorch.

    Raises:
        ValueError: If the file is no checkpoint but stands where one was expected: a web page, a
            pointer of Git LFS.
    """
    with open(path, 'rb') as file:
        start = file.read(32)
    if start.startswith(b'\x89HDF\r\n\x1a\n'):
        return _read_keras
    if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < 1e8:
        return _read_safetensors
    if start[:1] == b'{':
        return _read_shards
    if start[:1] == b'<':
        raise ValueError('it is a web page')
    if start.startswith(b'version https://git-lfs'):
        raise ValueError('it is a Git LFS pointer')
    return None


def check_file(path: str):
    """Raise an error if a file is damaged; an index of shards is looked at alone."""
    reader = reader_of(path)
    if reader is None:
        check_pytorch(path)
    elif reader is _read_shards:
        _weight_map(path)
    else:
        reader(path)


def config_beside(path: str) -> dict:
    """transformers' ``config.json`` of a folder or of a file in it, or {}."""
    path = osp.expanduser(path)
    if not osp.isdir(path):
        if osp.basename(path) not in FOLDER_FILES:
            return {}  # whatever lies there is not of this file
        path = osp.dirname(path)
    try:
        config = read_json(osp.join(path, 'config.json'))
    except (OSError, ValueError):
        return {}
    known = isinstance(config, dict) and config.get('model_type') in ('deit', 'vit')
    return config if known else {}


def classes_beside(path: str) -> list[str]:
    """The class names in transformers' ``config.json`` beside a DeiT's weights, or []."""
    labels = config_beside(path).get('id2label')
    if not isinstance(labels, dict):
        return []
    names = [str(labels[str(i)]) for i in range(len(labels)) if str(i) in labels]
    given = any(name != f'LABEL_{i}' for i, name in enumerate(names))
    return names if given and len(names) == len(labels) else []


def shards_of(index: str) -> list[str]:
    """The paths of the files that an index of shards names; all lie beside it.

    Raises:
        FileNotFoundError: If one of them is missing.
        ValueError: If the file is not an index.
    """
    paths = []
    for name in sorted(set(_weight_map(index).values())):
        path = osp.join(osp.dirname(index), osp.basename(name))
        if not osp.isfile(path):
            raise FileNotFoundError(f'{index} names {name}, which is not beside it')
        paths.append(path)
    return paths


def _weight_map(index: str) -> dict[str, str]:
    content = read_json(index)
    names = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
        raise ValueError('it is JSON without a weight_map')
    return names


def _read_safetensors(path: str) -> Weights:
    with safe_open(path, 'pt') as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}
        expected = (file.metadata() or {}).get(DIGEST)
    check_digest(weights, expected)
    return weights


def _read_shards(index: str) -> Weights:
    weights: Weights = {}
    for path in shards_of(index):
        reader = reader_of(path)
        if reader is _read_shards:
            raise ValueError(f'its part {osp.basename(path)} is an index too')
        part = (reader or read_pytorch)(path)
        if twice := sorted(part.keys() & weights.keys()):
            raise ValueError(f'two of its parts hold {some(twice)}')
        weights.update(part)
    if missing := sorted(_weight_map(index).keys() - weights.keys()):
        raise ValueError(f'its files lack {some(missing)}')
    return weights


def digest(weights: Weights) -> str:
    """SHA-256 of weights, their names, shapes and types."""
    found = hashlib.sha256()
    for name in sorted(weights):
        value = weights[name].detach().cpu().contiguous()
        found.update(f'{name} {value.dtype} {tuple(value.shape)}\n'.encode())
        found.update(value.flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_digest(weights: Mapping, expected):
    """Compare weights with the SHA-256 that stands beside them, if one does.

    Raises:
        ValueError: If they are others.
    """
    if expected is None:
        return
    dense = all(isinstance(v, torch.Tensor) and v.layout == torch.strided for v in weights.values())
    if not dense or expected != digest(dict(weights)):
        raise ValueError(
            f'its weights do not match the SHA-256 in its metadata. If you changed them, take {DIGEST!r} out'
        )


def _not_in_the_file(item) -> str:
    """Why the values of an HDF5 data set are not those in the file itself, or nothing."""
    if item.external or item.is_virtual:
        return 'lies in another file'
    if item.dtype.kind != 'f':
        return f'is of type {item.dtype}, not of numbers'
    if item.id.get_storage_size() < item.nbytes:  # Keras does not compress
        return f'declares {item.nbytes} bytes and holds {item.id.get_storage_size()}'
    return ''


def _read_keras(path: str) -> Weights:
    """transformers' TensorFlow weights, under the names that PyTorch's have."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f'{path} is HDF5, which needs h5py: `pip install h5py`') from error

    weights: Weights = {}
    left = osp.getsize(path)

    def visit(name, item):
        nonlocal left
        if name.count('/') > _DEEPEST_GROUP:
            raise ValueError(f'its groups are more than {_DEEPEST_GROUP} deep')
        if not isinstance(item, h5py.Dataset):
            return
        # LAYER/MODEL/deit/encoder/layer_._0/.../kernel:0
        name = '.'.join(name.split('/')[2:]).replace('layer_._', 'layer.')
        name = re.sub(r':\d+$', '', name)
        if reason := _not_in_the_file(item):
            raise ValueError(f'its data set {item.name} {reason}')
        left -= item.nbytes
        if left < 0:  # several are over the same bytes
            raise ValueError(f'its data sets hold more than its {osp.getsize(path)} bytes')
        value = torch.from_numpy(item[()])
        if name.endswith('.kernel'):  # input channels come before output channels
            value = value.T if value.ndim == 2 else value.permute(3, 2, 0, 1)
        name = re.sub(r'\.(kernel|gamma)$', '.weight', name)
        name = re.sub(r'\.beta$', '.bias', name)
        if name in weights:
            raise ValueError(f'it holds {name} twice')
        weights[name] = value.contiguous()

    with h5py.File(path, 'r') as file:
        file.visititems(visit)
    if not weights:
        raise ValueError('it is HDF5 without weights of Keras')
    return weights
