"""mmengine's checkpoint loaders, reading data only.

mmengine 0.10.7 keeps its logs in each checkpoint as objects that ``torch.load(weights_only=True)``, the
default since torch 2.6, does not know, so it cannot read its own checkpoints; it unpickles what it
downloads with code allowed; and it runs the config in a checkpoint that it resumes. Here

- exactly mmengine's logs, and the arguments that timm's and the reference's scripts store, are allowed
  in a file that is read as data (``safe_globals``);
- what else torch would do for a file is refused before torch reads it (``pickles``);
- every scheme of mmengine that downloads reads the file like a local one;
- the checksums in a file are compared with its content;
- a config that mmengine would run is left out of a checkpoint (``meta['config']``);
- what mmengine cannot read at all (``reading``) is read.

Everything else is mmengine's own, torch's switch ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1`` included.
"""

import difflib
import os.path as osp
import pickle
from collections.abc import Mapping

from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from ..messages import some
from .downloads import fetch
from .pytorch_file import read_pytorch
from .reading import DIGEST, check_digest, classes_beside, file_in, reader_of
from .recorded import meta_of, without_code
from .safe_globals import Refused, allow_mmengine_checkpoints


def load_from_local(filename: str, map_location=None):
    """mmengine's loader for local paths.

    Args:
        filename (str): Path of a file of PyTorch, safetensors or Keras (HDF5), of the index of a
            sharded one, or of a folder in which transformers saved a model.
        map_location: As in ``torch.load``, for files of PyTorch.

    Returns:
        What a file of PyTorch holds; of others a dict with ``'state_dict'``, and with the class names
        in ``'meta'`` where transformers' ``config.json`` of a DeiT lies beside it.

    Raises:
        FileNotFoundError: If there is no such file, or none in the folder.
        pickle.UnpicklingError: If the file holds code. None of it is run.
        ValueError: If the file is damaged or no checkpoint.
    """
    path = file_in(filename)
    try:
        reader = reader_of(path)
        if reader is None:
            checkpoint = without_code(read_pytorch(path, map_location))
            _check_recorded_digest(checkpoint)
        else:
            checkpoint = dict(state_dict=reader(path))
    except (FileNotFoundError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise _explained(error, path) from error
    if isinstance(checkpoint, dict) and (classes := classes_beside(path)):
        if 'state_dict' not in checkpoint:
            checkpoint = dict(state_dict=checkpoint)
        checkpoint.setdefault('meta', dict(dataset_meta=dict(classes=classes)))
    return checkpoint


def _check_recorded_digest(checkpoint):
    if not isinstance(checkpoint, Mapping):
        return
    for weights, recorded in (('state_dict', meta_of(checkpoint)), ('model', checkpoint)):
        if isinstance(checkpoint.get(weights), Mapping):
            check_digest(checkpoint[weights], recorded.get(DIGEST))


def _explained(error: Exception, path: str) -> Exception:
    if isinstance(error, Refused):
        return pickle.UnpicklingError(
            f'{path} is refused, nothing in it was run: it holds more than weights and logs '
            f'({error}). If its source is trusted, store its state dict alone with '
            'torch.save where it was made'
        )
    reason = str(error).splitlines()[0] if str(error) else ''
    return ValueError(
        f'{path} cannot be read, it is damaged or no checkpoint ({osp.getsize(path)} bytes; '
        f'{type(error).__name__}: {reason}). Copy or download it again'
    )


def load_from_http(filename: str, map_location=None, **kwargs):
    """mmengine's loader for addresses: downloads once, then reads a local file.

    Args:
        filename (str): Address, http or https.
        map_location: As in ``torch.load``.
        **kwargs: Not used; for mmengine's signature.
    """
    return load_from_local(fetch(filename), map_location)


def _address(filename: str, addresses: Mapping[str, str], renamed: Mapping[str, str] | None = None) -> str:
    scheme, name = filename.split('://', 1)
    name = (renamed or {}).get(name, name)
    if name not in addresses:
        close = difflib.get_close_matches(name, addresses)
        raise ValueError(f'There is no {name!r} under {scheme}://. Close to it: {some(close)}')
    return addresses[name]


def load_from_torchvision(filename: str, map_location=None):
    """mmengine's loader for ``torchvision://NAME``."""
    addresses = mmengine_checkpoint.get_torchvision_models()
    return load_from_http(_address(filename, addresses), map_location)


def load_from_openmmlab(filename: str, map_location=None):
    """mmengine's loader for ``open-mmlab://NAME``."""
    renamed = mmengine_checkpoint.get_deprecated_model_names()
    address = _address(filename, mmengine_checkpoint.get_external_models(), renamed)
    if address.startswith(('http://', 'https://')):
        return load_from_http(address, map_location)
    return load_from_local(osp.join(mmengine_checkpoint._get_mmengine_home(), address), map_location)


def load_from_mmcls(filename: str, map_location=None):
    """mmengine's loader for ``mmcls://NAME``: the backbone alone."""
    addresses = mmengine_checkpoint.get_mmcls_models()
    checkpoint = load_from_http(_address(filename, addresses), map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)


def register():
    """Replace mmengine's loaders of local files and of downloads.

    Its others (pavi, s3, petrel) call ``torch.load`` with its default, so they run no code either.
    """
    allow_mmengine_checkpoints()
    for prefixes, loader in (
        ('', load_from_local),
        (('http://', 'https://'), load_from_http),
        (('modelzoo://', 'torchvision://'), load_from_torchvision),
        (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
        ('mmcls://', load_from_mmcls),
    ):
        CheckpointLoader.register_scheme(prefixes=prefixes, loader=loader, force=True)
