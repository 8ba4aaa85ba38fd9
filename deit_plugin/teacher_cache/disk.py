"""Disk space and locks."""

import errno
import os
import os.path as osp
import shutil

from filelock import FileLock, Timeout

from ..checkpoints.atomic import lock

PATIENCE = 30.0  # seconds that the workers of a killed training may hold a lock


def lock_labels(path: str) -> FileLock | None:
    """A lock on a file of labels; see :func:`lock`.

    Raises:
        BlockingIOError: If another process holds it.
    """
    try:
        return lock(path + '.lock', PATIENCE)
    except Timeout:
        raise BlockingIOError(
            errno.EWOULDBLOCK,
            'Another run records these labels. Wait for its end, or choose another path',
            path,
        ) from None


def free_bytes(folder: str) -> int:
    """Free bytes on the disk where a folder is, or will be."""
    folder = osp.abspath(folder)
    while not osp.isdir(folder):
        folder = osp.dirname(folder)
    return shutil.disk_usage(folder).free


def reserve(file, size: int):
    """Grow an open file to bytes that are really reserved: a write to a memory map for which the disk
    has no room kills the process.

    Raises:
        OSError: With ``errno.ENOSPC`` if there is no room. The file is as it was.
    """
    before = os.fstat(file.fileno()).st_size
    if before >= size:
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:
        file.truncate(before)  # frees what was reserved of it
        unsupported = (None, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
        if getattr(error, 'errno', None) not in unsupported:
            raise
        file.truncate(size)
