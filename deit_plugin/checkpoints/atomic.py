"""Atomic writes: a file is there whole or not at all; and locks."""

import errno
import os
import os.path as osp
import shutil
import tempfile

from filelock import FileLock, Timeout
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

PARTIAL = '.deit_plugin_part'  # the end of what a killed write leaves, and of no other file


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Write bytes beside the file, under a name that no other writer has, then put them in its place.

    Raises:
        OSError: If the disk has no room, or the folder cannot be written. The file is as it was.
    """
    path = osp.abspath(path)
    folder, name = osp.split(path)
    os.makedirs(folder, exist_ok=True)
    handle, partial = tempfile.mkstemp(PARTIAL, name + '.', folder)
    try:
        with open(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(partial, 0o666 & ~_umask())  # as any new file, where mkstemp's are the owner's alone
        os.replace(partial, path)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise OSError(
            errno.ENOSPC,
            f'No room for {len(content) / 1e6:,.1f} MB, {shutil.disk_usage(folder).free / 1e6:,.1f} MB are '
            'free. What was there is as it was. Make room and try again; a training goes on with --resume',
            path,
        ) from error
    finally:
        if osp.exists(partial):
            os.remove(partial)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def lock(path: str, patience: float = -1, **kwargs) -> FileLock | None:
    """Hold a lock file until ``release``.

    Args:
        path (str): The lock file.
        patience (float): Seconds to wait for another holder, such as the workers of a killed training; -1
            waits for ever. Defaults to -1.
        **kwargs: As for ``FileLock``.

    Returns:
        FileLock | None: None on a file system without locks.

    Raises:
        filelock.Timeout: If another one holds it.
        OSError: If it is a link, which would lead to the file of another.
    """
    if osp.islink(path):
        raise OSError(errno.ELOOP, 'The lock is a link: remove it', path)
    held = FileLock(path, **kwargs)
    try:
        try:
            held.acquire(timeout=0)
        except Timeout:
            if patience != 0:
                print_log(f'{path} is held by another process, which is waited for', 'current')
            held.acquire(timeout=patience)
    except NotImplementedError:
        return None
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            return None
        raise
    return held


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """mmengine's local files, written whole or not at all."""

    def put(self, obj: bytes, filepath: str | os.PathLike) -> None:
        """See :func:`write_whole`."""
        write_whole(filepath, obj)
