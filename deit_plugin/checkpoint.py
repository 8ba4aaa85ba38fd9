"""Reading checkpoints on torch >= 2.6 without running code from them.

mmengine 0.10.7 keeps its logs in each checkpoint as objects that
``torch.load(weights_only=True)``, the default since torch 2.6, does not know,
so it cannot read its own checkpoints. Exactly these are allowed here, and the
arguments that timm's and the reference's training scripts store; anything
else in a file is still refused. mmengine reads what it downloads with
``weights_only=False``; here it is read as a local file.
"""
import argparse
import os
import os.path as osp
import pickle
import re
from urllib.parse import urlparse

import numpy as np
import torch
import torch.nn as nn
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

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
    """Read a checkpoint file as data; mmengine's loader for local paths.

    Args:
        filename (str): Path of the file.
        map_location: As in ``torch.load``.

    Raises:
        FileNotFoundError: If there is no such file.
        pickle.UnpicklingError: If the file holds code. None of it is run.
        ValueError: If the file is damaged or no checkpoint.
    """
    path = osp.expanduser(filename)
    if not osp.isfile(path):
        raise FileNotFoundError(
            f'There is no checkpoint {filename!r} ({osp.abspath(path)})')
    try:
        checkpoint = torch.load(
            path, map_location=map_location, weights_only=True)
    except Exception as error:
        found = re.search(_REFUSED, str(error))
        if isinstance(error, pickle.UnpicklingError) and found:
            raise pickle.UnpicklingError(
                f'{filename} is refused, nothing in it was run: it holds '
                f'more than weights and logs ({found[0].strip()}). If its '
                'source is trusted, store its state dict alone with '
                'torch.save where it was made') from error
        raise ValueError(
            f'{filename} cannot be read, it is damaged or no checkpoint of '
            f'torch ({osp.getsize(path)} bytes; {type(error).__name__}: '
            f'{str(error).splitlines()[0] if str(error) else ""}). Copy or '
            'download it again') from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{filename} holds a {type(checkpoint).__name__}, '
                         'not a checkpoint or a state dict')
    return checkpoint


def load_from_http(filename: str, map_location=None, **kwargs) -> dict:
    """Download a checkpoint once, then read it as data; mmengine's loader for
    addresses.

    Args:
        filename (str): Address, http or https.
        map_location: As in ``torch.load``.
        **kwargs: Not used; for mmengine's signature.
    """
    folder = osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(filename).path))
    if not is_main_process():
        barrier()  # until the main process has it
    if not osp.exists(path):  # there, or on another machine
        os.makedirs(folder, exist_ok=True)
        torch.hub.download_url_to_file(filename, path)
    if is_main_process():
        barrier()
    return load_from_local(path, map_location)


def load_strict(model: nn.Module, filename: str):
    """Fill every parameter of a model from a checkpoint.

    Args:
        model (nn.Module): A classifier of mmpretrain.
        filename (str): A checkpoint of mmengine, timm or facebookresearch, or
            a bare state dict: whatever mmengine's ``CheckpointLoader`` opens.

    Raises:
        ValueError: If a parameter is missing, has another shape, or is not
            of the model.
    """
    checkpoint = CheckpointLoader.load_checkpoint(filename, 'cpu')
    for key in ('state_dict', 'model'):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    state_dict = {re.sub(r'^module\.', '', k): v
                  for k, v in checkpoint.items()}
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
