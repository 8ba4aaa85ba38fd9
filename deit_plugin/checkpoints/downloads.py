"""Checkpoints from an address, downloaded once and checked."""

import hashlib
import os
import os.path as osp
import re
import uuid
from urllib.error import ContentTooShortError
from urllib.parse import urlparse
from urllib.request import urlretrieve

import torch
from mmengine.logging import print_log

from .atomic import PARTIAL, lock
from .reading import FOLDER_FILES, file_in, shards_of


def local_file(filename: str) -> str:
    """The path of a checkpoint; for an address that of its download."""
    if not re.match(r'https?://', filename):
        return osp.expanduser(filename)
    address = urlparse(filename)
    name = osp.basename(address.path)
    if name in FOLDER_FILES:  # every model's file on a hub has that name
        place = address.netloc + osp.dirname(address.path)
        name = f'{hashlib.sha256(place.encode()).hexdigest()[:8]}-{name}'
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
        OSError: If the download breaks off. Nothing is kept of it.
        ValueError: If what was downloaded does not have the hash in its name. It is not kept.
    """
    path = local_file(filename)
    if path == osp.expanduser(filename) or osp.exists(path):
        return path
    os.makedirs(osp.dirname(path), exist_ok=True)
    held = lock(path + '.lock')
    try:
        if not osp.exists(path):
            _download(filename, path)
    finally:
        if held is not None:
            held.release()
    return path


def _download(address: str, path: str):
    # torch.hub's takes a download that breaks off for whole; the standard library's does not.
    partial = f'{path}.{uuid.uuid4().hex}{PARTIAL}'
    print_log(f'Downloading {address}', logger='current')
    try:
        urlretrieve(address, partial)
        expected = published_hash(address)
        if expected and not (found := _sha256([partial])).startswith(expected):
            raise ValueError(
                f'{address} is not the published file: its SHA-256 begins with {found[: len(expected)]}, '
                f'not with {expected}. Try again, or download it by other means'
            )
        os.replace(partial, path)
    except ContentTooShortError as error:
        raise OSError(f'{address} broke off: {error.reason}. Try again') from error
    finally:
        if osp.exists(partial):
            os.remove(partial)


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
