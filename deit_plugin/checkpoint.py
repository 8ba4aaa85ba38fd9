"""Reading checkpoints of any library without running code from them.

What a file is shows in its content: PyTorch's, safetensors (in one or several
files) or the HDF5 of Keras; a folder is one of transformers. Whose names the
weights bear is found out when they are loaded, see ``formats``.

mmengine 0.10.7 keeps its logs in each checkpoint as objects that
``torch.load(weights_only=True)``, the default since torch 2.6, does not know,
so it cannot read its own checkpoints. Exactly these are allowed here, and the
arguments that timm's and the reference's training scripts store; anything
else in a file is still refused. mmengine reads what it downloads with
``weights_only=False``; here it is read as a local file.
"""
import argparse
import hashlib
import json
import os
import os.path as osp
import pickle
import re
from typing import Dict
from urllib.parse import urlparse

import numpy as np
import torch
import torch.nn as nn
from mmengine.logging import HistoryBuffer, print_log
from mmengine.runner import CheckpointLoader
from safetensors import safe_open

from .formats import some

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

# What transformers calls its files, in the order in which they are taken.
FOLDER_FILES = ('model.safetensors.index.json', 'model.safetensors',
                'pytorch_model.bin.index.json', 'pytorch_model.bin',
                'tf_model.h5')
# The moving average in files of timm and of facebookresearch/deit. mmengine
# has it under `state_dict`, where it is read like any weights.
AVERAGES = ('state_dict_ema', 'model_ema')

# In the message with which torch refuses an object, not a damaged file.
_REFUSED = (r'(?i)[^\n]*(unsupported (global|class|operand)|'
            r'unrecognized function|allowlisted)[^\n]*')


def _history_statistic(owner: type, name: str):
    """What a checkpoint calls ``getattr`` for, and no other attribute of
    anything: ``HistoryBuffer`` is stored with its statistics."""
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')


def allow_mmengine_checkpoints():
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints."""
    numbers = {type(np.dtype(code)) for code in '?bhilqBHILQefd'}
    reconstruct = np.ndarray(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    torch.serialization.add_safe_globals([
        HistoryBuffer, argparse.Namespace, np.ndarray, np.dtype, *numbers,
        (_history_statistic, 'builtins.getattr'),
        # numpy 1 and 2 store the same functions under different names.
        (reconstruct, 'numpy._core.multiarray._reconstruct'),
        (reconstruct, 'numpy.core.multiarray._reconstruct'),
        (scalar, 'numpy._core.multiarray.scalar'),
        (scalar, 'numpy.core.multiarray.scalar')
    ])


def load_from_local(filename: str, map_location=None) -> dict:
    """Read a checkpoint as data; mmengine's loader for local paths.

    Args:
        filename (str): Path of a file of PyTorch, safetensors or Keras
            (HDF5), of the index of a sharded one, or of a folder in which
            transformers saved a model.
        map_location: As in ``torch.load``, for files of PyTorch.

    Returns:
        dict: The content; its weights are under ``'state_dict'`` unless it
        is a bare state dict of PyTorch.

    Raises:
        FileNotFoundError: If there is no such file, or none in the folder.
        pickle.UnpicklingError: If the file holds code. None of it is run.
        ValueError: If the file is damaged or no checkpoint.
    """
    path = osp.expanduser(filename)
    if osp.isdir(path):
        path = _weights_in(path)
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'There is no checkpoint {filename!r} ({osp.abspath(path)})')
    checkpoint = _read(path, map_location)
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{filename} holds a {type(checkpoint).__name__}, '
                         'not a checkpoint or a state dict')
    # facebookresearch/deit's files have their weights under `model`.
    if isinstance(checkpoint.get('model'), dict):
        checkpoint.setdefault('state_dict', checkpoint['model'])
    for average in AVERAGES:
        if average in checkpoint:
            print_log(
                f'{filename} holds a moving average too ({average}), which '
                'is not taken: `deit-plugin convert --ema` writes it',
                logger='current')
    if classes := _labels_beside(path):
        if 'state_dict' not in checkpoint:
            checkpoint = dict(state_dict=checkpoint)
        checkpoint.setdefault('meta', dict(dataset_meta=dict(classes=classes)))
    return checkpoint


def config_beside(path: str) -> dict:
    """transformers' ``config.json`` of a folder or of a file in it, or {}."""
    path = osp.expanduser(path)
    if not osp.isdir(path):
        if osp.basename(path) not in FOLDER_FILES:
            return {}  # whatever lies there is not of this file
        path = osp.dirname(path)
    try:
        with open(osp.join(path, 'config.json'), encoding='utf-8') as file:
            config = json.load(file)
    except (OSError, ValueError):
        return {}
    known = isinstance(config, dict) and \
        config.get('model_type') in ('deit', 'vit')
    return config if known else {}


def _labels_beside(path: str) -> list:
    labels = config_beside(path).get('id2label')
    if not isinstance(labels, dict):
        return []
    names = [labels.get(str(i)) for i in range(len(labels))]
    given = any(name != f'LABEL_{i}' for i, name in enumerate(names))
    return names if given and None not in names else []


def _weights_in(folder: str) -> str:
    for name in FOLDER_FILES:
        if osp.isfile(osp.join(folder, name)):
            return osp.join(folder, name)
    raise FileNotFoundError(
        f'{folder} is a folder without weights: it has none of '
        f'{", ".join(FOLDER_FILES)}')


def _read(path: str, map_location=None) -> dict:
    size = osp.getsize(path)
    with open(path, 'rb') as file:
        start = file.read(32)
    try:
        if start.startswith(b'\x89HDF\r\n\x1a\n'):
            return dict(state_dict=_read_keras(path))
        if start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < 1e8:
            with safe_open(path, 'pt') as file:
                return dict(
                    state_dict={k: file.get_tensor(k) for k in file.keys()})
        if start[:1] == b'{':
            return dict(state_dict=_read_shards(path, map_location))
        if start[:1] == b'<' or start.startswith(b'version https://git-lfs'):
            kind = 'a web page' if start[:1] == b'<' else 'a Git LFS pointer'
            raise ValueError(f'it is {kind}')
        # Again, since who allows one of them for a while, as timm does,
        # forbids it afterwards.
        allow_mmengine_checkpoints()
        return torch.load(path, map_location=map_location, weights_only=True)
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        found = re.search(_REFUSED, str(error))
        if isinstance(error, pickle.UnpicklingError) and found:
            raise pickle.UnpicklingError(
                f'{path} is refused, nothing in it was run: it holds '
                f'more than weights and logs ({found[0].strip()}). If its '
                'source is trusted, store its state dict alone with '
                'torch.save where it was made') from error
        raise ValueError(
            f'{path} cannot be read, it is damaged or no checkpoint '
            f'({size} bytes; {type(error).__name__}: '
            f'{str(error).splitlines()[0] if str(error) else ""}). Copy or '
            'download it again') from error


def _read_shards(index: str, map_location) -> Dict[str, torch.Tensor]:
    with open(index, encoding='utf-8') as file:
        wanted = json.load(file).get('weight_map')
    if not isinstance(wanted, dict):
        raise ValueError('it is JSON without a weight_map')
    weights = {}
    for name in sorted(set(wanted.values())):
        path = osp.join(osp.dirname(index), osp.basename(name))
        if not osp.isfile(path):
            raise FileNotFoundError(f'{index} names {name}, which is not '
                                    'beside it')
        part = _read(path, map_location)
        weights.update(part.get('state_dict', part))
    if missing := sorted(wanted.keys() - weights.keys()):
        raise ValueError(f'its files lack {some(missing)}')
    return weights


def _read_keras(path: str) -> Dict[str, torch.Tensor]:
    """transformers' TensorFlow weights, by the names that PyTorch's have."""
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'{path} is HDF5, which needs h5py: `pip install h5py`') from error

    weights = {}

    def visit(name, item):
        if not isinstance(item, h5py.Dataset):
            return
        # LAYER/MODEL/deit/encoder/layer_._0/.../kernel:0
        name = '.'.join(name.split('/')[2:]).replace('layer_._', 'layer.')
        name = re.sub(r':\d+$', '', name)
        value = torch.from_numpy(item[()])
        if name.endswith('.kernel'):  # input channels come before output
            value = value.T if value.ndim == 2 else value.permute(3, 2, 0, 1)
        name = re.sub(r'\.(kernel|gamma)$', '.weight', name)
        weights[re.sub(r'\.beta$', '.bias', name)] = value.contiguous()

    with h5py.File(path, 'r') as file:
        file.visititems(visit)
    if not weights:
        raise ValueError('it is HDF5 without weights of Keras')
    return weights


def load_from_http(filename: str, map_location=None, **kwargs) -> dict:
    """Download a checkpoint once, then read it as data; mmengine's loader for
    addresses.

    Args:
        filename (str): Address, http or https.
        map_location: As in ``torch.load``.
        **kwargs: Not used; for mmengine's signature.
    """
    return load_from_local(fetch(filename), map_location)


def fetch(filename: str) -> str:
    """The path of a checkpoint, downloaded if it is an address and not there.

    No process waits for another here, as not all of them may ask: one
    downloads for those that share the folder.
    """
    path = local_file(filename)
    if path == osp.expanduser(filename) or osp.exists(path):
        return path
    os.makedirs(osp.dirname(path), exist_ok=True)
    with open(path + '.lock', 'w') as lock:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not osp.exists(path):
            torch.hub.download_url_to_file(filename, path)
    return path


def content_hash(path: str) -> str:
    """SHA-256 of a checkpoint's weights: of a file, or of all the files of a
    folder or of an index."""
    path = _weights_in(path) if osp.isdir(path) else path
    files = [path]
    with open(path, 'rb') as file:
        sharded = file.read(1) == b'{'
    if sharded:
        with open(path, encoding='utf-8') as file:
            names = json.load(file).get('weight_map', {}).values()
        files += [osp.join(osp.dirname(path), osp.basename(name))
                  for name in sorted(set(names))]
    digest = hashlib.sha256()
    for name in files:
        with open(name, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def local_file(filename: str) -> str:
    """The path of a checkpoint, for an address that of its download."""
    if not re.match(r'https?://', filename):
        return osp.expanduser(filename)
    address = urlparse(filename)
    name = osp.basename(address.path)
    if not re.search(r'-[0-9a-f]{8}\.', name):
        # No name of its own: transformers calls every model's file the same.
        place = address.netloc + osp.dirname(address.path)
        name = f'{hashlib.sha256(place.encode()).hexdigest()[:8]}-{name}'
    return osp.join(torch.hub.get_dir(), 'checkpoints', name)


def load_strict(model: nn.Module, filename: str):
    """Fill every parameter of a model from a checkpoint.

    Args:
        model (nn.Module): A classifier of mmpretrain.
        filename (str): Whatever mmengine's ``CheckpointLoader`` opens; into
            a :class:`DeiT` with the names of any library.

    Raises:
        ValueError: If a parameter is missing, has another shape, or is not
            of the model.
    """
    checkpoint = CheckpointLoader.load_checkpoint(filename, 'cpu')
    state_dict = {
        re.sub(r'^module\.', '', name): value
        for name, value in checkpoint.get('state_dict', checkpoint).items()
    }
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        raise ValueError(f'{filename} does not fit the model: '
                         f'{error}') from error
    missing = [k for k in missing if not k.endswith('num_batches_tracked')]
    if missing or unexpected:
        raise ValueError(
            f'{filename} does not fit the model: it lacks {len(missing)} '
            f'parameters ({missing[:5]}) and holds {len(unexpected)} that '
            f'are not of the model ({unexpected[:5]})')


allow_mmengine_checkpoints()
CheckpointLoader.register_scheme(
    prefixes='', loader=load_from_local, force=True)
CheckpointLoader.register_scheme(
    prefixes=('http://', 'https://'), loader=load_from_http, force=True)
