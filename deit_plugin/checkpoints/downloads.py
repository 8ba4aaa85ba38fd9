"""Checkpoints from an address, downloaded once and checked."""

import functools
import glob
import hashlib
import os
import os.path as osp
import pickle
import re
import shutil
import uuid
from http.client import HTTPException
from urllib.parse import urlparse
from urllib.request import urlopen

import torch
from mmengine.logging import print_log

from .atomic import PARTIAL, lock
from .reading import check_file, file_in, shards_of

TIMEOUT = 60  # seconds without a byte


def local_file(filename: str) -> str:
    """The path of a checkpoint; for an address that of its download.

    A published name that ends with a hash is the file's own. Of others, such as ``model.safetensors``, there
    are many, so the address stands before them as a hash.
    """
    if not re.match(r'https?://', filename):
        return osp.expanduser(filename)
    name = osp.basename(urlparse(filename).path)
    if not published_hash(filename):
        name = f'{hashlib.sha256(filename.encode()).hexdigest()[:32]}-{name}'
    return osp.join(torch.hub.get_dir(), 'checkpoints', name)


def published_hash(filename: str) -> str | None:
    """The start of the SHA-256 that a published name ends with, as in ``regnety_160-a5fe301d.pth``.

    Eight decimal digits may as well be a date, so they are none.
    """
    found = re.search(r'-([0-9a-f]{8,64})\.\w+$', osp.basename(urlparse(filename).path))
    return found[1] if found and not found[1].isdecimal() else None


def fetch(filename: str) -> str:
    """The path of a checkpoint, downloaded if it is an address and not there yet.

    Of the processes that share the folder one downloads. The others do not wait in a barrier, as not
    all of them may ask.

    Raises:
        OSError: If the download fails or breaks off. Nothing is kept of it.
        ValueError: If the file does not have the hash in its name. It is not kept if it was just
            downloaded.
    """
    path = local_file(filename)
    if path == osp.expanduser(filename):
        return path
    os.makedirs(osp.dirname(path), exist_ok=True)
    held = lock(path + '.lock')
    try:
        if not osp.exists(path):
            _download(filename, path)
        elif expected := published_hash(filename):
            _check_hash(path, expected, f'{path}, downloaded earlier,', 'Delete it')
    finally:
        if held is not None:
            held.release()
    return path


def _download(address: str, path: str):
    # torch.hub's takes a download that breaks off for whole, and the standard library's waits for ever.
    for killed in glob.glob(f'{glob.escape(path)}.*{PARTIAL}'):  # nobody else has the lock
        os.remove(killed)
    partial = f'{path}.{uuid.uuid4().hex}{PARTIAL}'
    print_log(f'Downloading {address}', logger='current')
    try:
        _retrieve(address, partial)
        if expected := published_hash(address):
            _check_hash(partial, expected, address, 'Try again, or download it by other means')
        else:
            _check_content(partial, address)
        os.replace(partial, path)
    except (HTTPException, OSError) as error:
        raise OSError(f'{address} cannot be downloaded: {error}. Nothing of it is kept. Try again') from error
    finally:
        if osp.exists(partial):
            os.remove(partial)


def _retrieve(address: str, path: str):
    with urlopen(address, timeout=TIMEOUT) as answer, open(path, 'wb') as file:
        shutil.copyfileobj(answer, file, 1 << 20)
        length = answer.headers.get('Content-Length')
        if length is not None and file.tell() != int(length):  # else the content has to tell
            raise OSError(f'it broke off after {file.tell()} of {length} bytes')


def _check_hash(path: str, expected: str, name: str, mend: str):
    stat = os.stat(path)
    found = _hash_of(path, stat.st_size, stat.st_mtime_ns)
    if not found.startswith(expected):
        raise ValueError(
            f'{name} is not the published file: its SHA-256 begins with {found[: len(expected)]}, '
            f'not with {expected}. {mend}'
        )


@functools.lru_cache
def _hash_of(path: str, size: int, changed: int) -> str:
    """SHA-256 of a file that has not changed since."""
    return _sha256([path])


def _check_content(path: str, address: str):
    try:
        check_file(path)
    except (ModuleNotFoundError, pickle.UnpicklingError):
        pass  # whole; the reader tells what it lacks, or what is wrong with it
    except Exception as error:  # each format has its own
        raise OSError(f'it broke off or is no checkpoint ({error})') from error


def content_hash(path: str) -> str:
    """SHA-256 of a checkpoint: of a file, or of all the files of a folder or of an index."""
    path = file_in(path)
    files = [path]
    with open(path, 'rb') as file:
        is_index = file.read(1) == b'{'
    if is_index:
        files += shards_of(path)
    return _sha256(files)


def _sha256(files: list[str]) -> str:
    digest = hashlib.sha256()
    for name in files:
        with open(name, 'rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
