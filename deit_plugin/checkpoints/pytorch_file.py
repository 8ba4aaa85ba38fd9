"""Files of ``torch.save``: their layout, read by ``pickles``."""

import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

import torch

from ..messages import some
from .pickles import DataUnpickler, ForeignGlobal
from .safe_globals import allow_mmengine_checkpoints

_ZIP = b'PK\x03\x04'
_LOCAL_HEADER = struct.Struct('<4s22xHH')  # its end: the lengths of name and extra field
# torch's own, by which it lets code run in every file.
_CODE_ALLOWED = 'TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'


def read_pytorch(path: str, map_location='cpu'):
    """What a file of ``torch.save`` holds, read as data, all of it.

    Args:
        path (str): The file.
        map_location: As in ``torch.load``. Defaults to ``'cpu'``.

    Raises:
        pickle.UnpicklingError: If it holds more than weights and logs.
        ValueError: If it is damaged.
    """
    if _torch_allows_code():
        return torch.load(path, map_location=map_location)
    try:
        return _read(path, torch.serialization._get_restore_location(map_location))
    except ForeignGlobal:  # torch asks no more of it than without this package
        return torch.load(path, map_location=map_location)


def check_pytorch(path: str):
    """Read a file without keeping it; raises as :func:`read_pytorch` does."""
    try:
        _read(path, lambda storage, place: storage)
    except ForeignGlobal:
        pass


def _torch_allows_code() -> bool:
    return os.environ.get(_CODE_ALLOWED, '').lower() in ('1', 'y', 'yes', 'true')


def _read(path: str, restore: Callable):
    # Again, since who allows one of them for a while, as timm does, forbids it afterwards.
    allow_mmengine_checkpoints()
    with open(path, 'rb') as file:
        is_zip = file.read(4) == _ZIP
        file.seek(0)
        return _read_zip(file, restore) if is_zip else _read_legacy(file, restore)


class _Parts:
    """The parts of a zip as torch writes it: not compressed, one after the other, in one folder.

    Args:
        file (io.BufferedReader): The file.

    Raises:
        ValueError: If it is another zip.
    """

    def __init__(self, file: io.BufferedReader):
        self.file = file
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
        names = [part.filename for part in parts]
        self.root = names[0].partition('/')[0] + '/' if names else ''
        if (
            any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            or len(set(names)) < len(names)
            or not all(name.startswith(self.root) for name in names)
            or min((part.header_offset for part in parts), default=1) != 0  # something before it
            or sum(part.file_size for part in parts) > os.fstat(file.fileno()).st_size
        ):
            raise ValueError(f'its parts are not those of torch.save: {some(names)}')
        self.parts = dict(zip(names, parts))
        # With `torch.serialization.set_crc32_options(False)` all are 0.
        self.has_checksums = any(part.CRC for part in parts)

    def read(self, name: str) -> torch.Tensor:
        """The bytes of a part."""
        part = self.parts.get(self.root + name)
        if part is None:
            raise ValueError(f'it has no part {name}')
        self.file.seek(part.header_offset)
        start, *lengths = _LOCAL_HEADER.unpack(self.file.read(_LOCAL_HEADER.size))
        if start != _ZIP:
            raise ValueError(f'its part {name} is not where its directory says')
        self.file.seek(sum(lengths), os.SEEK_CUR)
        content = _take(self.file, part.file_size)
        if self.has_checksums and zlib.crc32(content.numpy().data) != part.CRC:
            raise ValueError(f'its part {name} does not match its checksum')
        return content


def _take(file: io.BufferedReader, size: int) -> torch.Tensor:
    """So many bytes of a file."""
    content = torch.empty(size, dtype=torch.uint8)
    if file.readinto(content.numpy().data) != size:
        raise ValueError('its end is missing')
    return content


def _read_zip(file: io.BufferedReader, restore: Callable):
    parts = _Parts(file)
    order = b'little'
    if parts.root + 'byteorder' in parts.parts:
        order = parts.read('byteorder').numpy().tobytes()

    def memory(key: str, dtype: torch.dtype, numel: int, place: str) -> torch.UntypedStorage:
        content = parts.read(f'data/{key}')
        if len(content) != numel * dtype.itemsize:
            raise ValueError(f'its storage {key} has {len(content)} bytes, not {numel * dtype.itemsize}')
        storage = content.untyped_storage()
        if order == b'big':
            storage.byteswap(dtype)
        return restore(storage, place)

    return DataUnpickler(io.BytesIO(parts.read('data.pkl').numpy().data), memory).load()


def _read_legacy(file: io.BufferedReader, restore: Callable):
    """A file of before torch 1.6: some pickles, then the storages in their order."""
    if not re.match(rb'\x80[\x00-\x05]', file.read(2)):
        raise ValueError('it does not begin like a file of torch.save')
    file.seek(0)

    def none(*storage):
        raise ValueError('a storage where there is none')

    for expected in (torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION):
        if DataUnpickler(file, none).load() != expected:
            raise ValueError('it is a pickle, but not of torch.save')
    DataUnpickler(file, none).load()  # of the machine that saved it
    start = file.tell()
    # Twice: what the storages are stands before them, and where they are behind.
    declared: dict[str, tuple[torch.dtype, int, str]] = {}

    def note(key: str, dtype: torch.dtype, numel: int, place: str) -> torch.UntypedStorage:
        declared[key] = dtype, numel, place
        return torch.UntypedStorage(numel * dtype.itemsize, device='meta')

    DataUnpickler(file, note).load()
    keys = DataUnpickler(file, none).load()
    if not isinstance(keys, list) or len(keys) != len(declared) or set(keys) != declared.keys():
        raise ValueError('its storages are not those that its pickle names')
    storages = {}
    for key in keys:
        dtype, numel, place = declared[key]
        found = int.from_bytes(file.read(8), 'little')
        if found != numel or numel > os.fstat(file.fileno()).st_size:
            raise ValueError(f'its storage {key} has {found} values, not {numel}')
        storages[key] = restore(_take(file, numel * dtype.itemsize).untyped_storage(), place)
    file.seek(start)
    return DataUnpickler(file, lambda key, *_: storages[key]).load()
