"""Files of ``torch.save``: inspected, then read by torch."""

import io
import os
import re
import zipfile
from typing import BinaryIO

import torch

from ..messages import some
from .pickles import StandInUnpickler
from .safe_globals import allow_mmengine_checkpoints

_ZIP = b'PK\x03\x04'
# torch's own, by which it lets code run in every file.
_CODE_ALLOWED = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def read_pytorch(path: str, map_location=None):
    """What a file of ``torch.save`` holds, read as data.

    Args:
        path (str): The file.
        map_location: As in ``torch.load``.

    Raises:
        pickle.UnpicklingError: If it holds more than weights and logs.
        ValueError: If it is damaged.
    """
    check_pytorch(path)
    return torch.load(path, map_location=map_location)


def check_pytorch(path: str):
    """Inspect a file without loading it; raises as :func:`read_pytorch` does."""
    # Again, since who allows one of them for a while, as timm does, forbids it afterwards.
    allow_mmengine_checkpoints()
    with open(path, 'rb') as file:
        is_zip = file.read(4) == _ZIP
        file.seek(0)
        if is_zip:
            _check_zip(file)
        elif not torch_allows_code():
            _check_legacy(file)


def torch_allows_code() -> bool:
    """Whether the user has switched torch to run what files hold."""
    return os.environ.get(_CODE_ALLOWED, '').lower() in ('1', 'y', 'yes', 'true')


def _check_zip(file: BinaryIO):
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        names = [part.filename for part in parts]
        # torch finds the parts by other rules where they are not as it writes them.
        root = names[0].partition('/')[0] + '/' if names else ''
        if (
            len({name.lower() for name in names}) < len(names)
            or not all(name.startswith(root) for name in names)
            or min((part.header_offset for part in parts), default=1) != 0
        ):
            raise ValueError(f'its parts are not those of torch.save: {some(names)}')
        declared = sum(part.file_size for part in parts)
        if declared > 10 * size:  # torch.save does not compress
            raise ValueError(f'it declares {declared} bytes')
        # With `torch.serialization.set_crc32_options(False)` all are 0.
        if any(part.CRC for part in parts) and (name := archive.testzip()):
            raise ValueError(f'its part {name} does not match its checksum')
    if torch_allows_code():
        return
    file.seek(0)
    # By torch's reader: what is inspected is what it loads.
    unpickler = StandInUnpickler(io.BytesIO(torch._C.PyTorchFileReader(file).get_record('data.pkl')))
    unpickler.load()
    sizes = {part.filename: part.file_size for part in parts}
    for key, (itemsize, numel) in unpickler.storages.items():
        found = sizes.get(f'{root}data/{key}')
        if found != itemsize * numel:
            raise ValueError(f'its storage {key} has {found} bytes, not {itemsize * numel}')


def _check_legacy(file: BinaryIO):
    """A file of before torch 1.6: some pickles, then the storages in their order."""
    if not re.match(rb'\x80[\x00-\x05]', file.read(2)):
        raise ValueError('it does not begin like a file of torch.save')
    file.seek(0)
    for expected in (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION):
        if StandInUnpickler(file).load() != expected:
            raise ValueError('it is a pickle, but not of torch.save')
    StandInUnpickler(file).load()  # of the machine that saved it
    unpickler = StandInUnpickler(file)
    unpickler.load()
    keys = StandInUnpickler(file).load()
    if not isinstance(keys, list) or set(keys) != unpickler.storages.keys():
        raise ValueError('its storages are not those that its pickle names')
    for key in keys:
        itemsize, numel = unpickler.storages[key]
        found = int.from_bytes(file.read(8), 'little')
        if found != numel:
            raise ValueError(f'its storage {key} has {found} values, not {numel}')
        file.seek(itemsize * numel, os.SEEK_CUR)
    if file.tell() > os.fstat(file.fileno()).st_size:
        raise ValueError('its end is missing')
