"""A teacher's answers on disk, so that it is paid for once."""

import errno
import json
import os
import os.path as osp
import shutil
import struct
import time
import zlib
from typing import Optional, Tuple, Union

import numpy as np
from filelock import FileLock, Timeout
from mmengine.logging import print_log

from ..checkpoints.atomic import write_whole
from .fingerprint import fingerprint_difference

FORMAT = 1
HEADER_WAIT = 60  # seconds that the other ranks give rank 0
FLUSH_INTERVAL = 1000  # blocks


class LabelStore:
    """The teacher's classes for each image of a run, by iteration.

    A folder with ``header.json`` and, for each rank, a file ``rank0.labels``,
    ... of one block an iteration: a checksum (uint32), the class indices
    (uint16, or uint32 above 65,535 classes) and, with ``topk``, their
    probabilities (float16). A block whose checksum is 0 is a hole: not
    recorded.

    A process that is killed, even inside :meth:`write`, leaves holes, never
    wrong labels. A power cut may lose what was recorded since the last
    :meth:`flush`, and in any order: a block of which only a part reached the
    disk does not match its checksum, and :meth:`read` reports it.

    Args:
        path (str): The folder, one for all ranks.
        mode (str): ``'record'`` or ``'auto'`` to create the store or go on
            with it (they open it alike; with ``'auto'`` the caller is to read
            first), ``'replay'`` to only read it.
        fingerprint (dict): All that the labels depend on, in values that JSON
            knows.
        iterations (int): The iterations of the whole run. A longer store
            serves too; a shorter one grows, unless it is replayed.
        batch_size (int): Images in an iteration of one rank.
        num_classes (int): Classes of the teacher.
        rank (int): This process, 0 to ``world_size`` - 1. Rank 0 writes the
            header, for which the others wait.
        world_size (int): The number of processes.
        topk (int): Classes to keep for each image, with probabilities. 0
            keeps one class without a probability. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range, if the store differs in
            anything but its length, if its header is damaged, or if it is too
            short to be replayed.
        FileNotFoundError: If there is nothing to replay.
        BlockingIOError: If another process records into the same file.
        OSError: With ``errno.ENOSPC``, if the disk lacks the room.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike],
        mode: str,
        fingerprint: dict,
        iterations: int,
        batch_size: int,
        num_classes: int,
        rank: int = 0,
        world_size: int = 1,
        topk: int = 0,
    ):
        if (
            mode not in ('record', 'replay', 'auto')
            or min(iterations, batch_size, num_classes, world_size) < 1
            or not 0 <= rank < world_size
            or not 0 <= topk <= num_classes
        ):
            raise ValueError(
                f'Out of range: mode={mode!r}, iterations={iterations}, '
                f'batch_size={batch_size}, num_classes={num_classes}, '
                f'rank={rank}, world_size={world_size}, topk={topk}'
            )
        self.path, self.mode, self.rank = os.fspath(path), mode, rank
        self.file = osp.join(self.path, f'rank{rank}.labels')
        self.header_file = osp.join(self.path, 'header.json')
        self.iterations, self.num_classes = int(iterations), int(num_classes)
        self.batch_size, self.world_size = int(batch_size), int(world_size)
        self.topk = int(topk)
        self._dtype = _block_dtype(batch_size, num_classes, topk)
        self._header = dict(
            format=FORMAT,
            dtype=self._dtype['indices'].base.name,
            batch_size=self.batch_size,
            world_size=self.world_size,
            num_classes=self.num_classes,
            topk=self.topk,
            fingerprint=json.loads(json.dumps(fingerprint)),
        )
        self._blocks = self._lock = None
        self._unflushed = 0
        try:
            self._open_to_read() if mode == 'replay' else self._open_to_write()
            self._blocks = np.memmap(
                self.file, self._dtype, 'r' if mode == 'replay' else 'r+', shape=(self.iterations,)
            )
        except BaseException:
            self.close()
            raise

    @property
    def summary(self) -> str:
        """The size of the whole run's labels, of all ranks, in one line."""
        images = self.iterations * self.batch_size * self.world_size
        size = self.iterations * self._dtype.itemsize * self.world_size
        return (
            f'{self.iterations:,} iterations of {self.world_size} x '
            f'{self.batch_size} images, {images * (self.topk or 1):,} '
            f'labels, {size / 1e6:,.1f} MB in {self.path}'
        )

    def write(self, iteration: int, indices, probs=None) -> None:
        """Record a block, in the place of what may be there.

        Args:
            iteration (int): 0 to ``iterations`` - 1.
            indices (array): Integers, 0 to ``num_classes`` - 1, of shape
                (batch_size, ), with ``topk`` (batch_size, topk).
            probs (array, optional): With ``topk``, and only then: the
                probabilities, 0 to 1, (batch_size, topk).

        Raises:
            IndexError: If the iteration is out of range.
            ValueError: If the arrays are not as above, or the store is only
                replayed or closed.
        """
        view, block = self._view(iteration), np.zeros(1, self._dtype)
        if self.mode == 'replay':
            raise ValueError(f'{self.path} is replayed: it takes no labels')
        indices, shape = np.asarray(indices), block['indices'].shape[1:]
        if (
            indices.shape != shape
            or indices.dtype.kind not in 'iu'
            or indices.min() < 0
            or indices.max() >= self.num_classes
        ):
            raise ValueError(
                f'indices must be integers from 0 to {self.num_classes - 1} '
                f'of shape {shape}, but are {indices.dtype} of shape '
                f'{indices.shape}, or out of range'
            )
        block['indices'] = indices
        if (probs is not None) != bool(self.topk):
            raise ValueError(f'probs are needed if topk > 0, and only then, but topk is {self.topk}')
        if probs is not None:
            probs = np.asarray(probs, np.float16)
            if probs.shape != shape or not ((probs >= 0) & (probs <= 1)).all():
                raise ValueError(
                    f'probs must be from 0 to 1 and of shape {shape}, but are {probs.shape}, or out of range'
                )
            block['probs'] = probs
        # A kill between any two of these lines leaves a hole.
        view['checksum'] = 0
        for name in self._dtype.names[1:]:
            view[name] = block[name]
        view['checksum'] = self._checksum(iteration, block)
        self._unflushed += 1
        if self._unflushed >= FLUSH_INTERVAL:
            self.flush()

    def read(self, iteration: int) -> Union[None, np.ndarray, Tuple[np.ndarray, np.ndarray]]:
        """The block of an iteration, 0 to ``iterations`` - 1.

        Returns:
            The indices (batch_size, ), int64. With ``topk`` a tuple, the
            indices (batch_size, topk) and their probabilities, float32. None
            for a hole, unless the store is replayed.

        Raises:
            LookupError: If a hole is replayed.
            IndexError: If the iteration is out of range.
            ValueError: If the block is damaged, or the store closed.
        """
        # A copy, since another process may record meanwhile.
        block = self._view(iteration).copy()
        if not block['checksum'][0]:
            if self.mode != 'replay':
                return None
            raise LookupError(
                f'{self.file} has no labels for iteration {iteration}: '
                f'{self.recorded():,} of {self.iterations:,} iterations are '
                "recorded. mode='auto' asks the teacher for the others"
            )
        if block['checksum'][0] != self._checksum(iteration, block):
            raise ValueError(
                f'{self.file} is damaged at iteration {iteration}: its labels '
                "do not match their checksum. mode='record' records this "
                'iteration anew and leaves the others. Or delete the file: '
                "mode='auto' then records all of this rank anew"
            )
        indices = block['indices'][0].astype(np.int64)
        if not self.topk:
            return indices
        return indices, block['probs'][0].astype(np.float32)

    def recorded(self) -> int:
        """How many of this rank's ``iterations`` are recorded. This goes
        through the whole file, yet only :meth:`read` tells what is sound.

        Raises:
            ValueError: If the store is closed.
        """
        self._view(0)
        return int(np.count_nonzero(self._blocks['checksum']))

    def flush(self) -> None:
        """Have the disk hold what is recorded."""
        if self._blocks is not None and self.mode != 'replay':
            self._blocks.flush()
        self._unflushed = 0

    def close(self) -> None:
        """Flush, and let others record. A second time does nothing."""
        self.flush()
        self._blocks = None
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def __getstate__(self):
        # A copy of the map would be all of it in memory.
        raise TypeError('A LabelStore can be neither copied nor pickled')

    def _view(self, iteration: int) -> np.ndarray:
        if self._blocks is None:
            raise ValueError(f'The label store {self.path} is closed')
        if not 0 <= iteration < self.iterations:
            raise IndexError(f'Iteration {iteration} is not within 0 to {self.iterations - 1}')
        return self._blocks[iteration : iteration + 1]

    def _checksum(self, iteration: int, block: np.ndarray) -> int:
        place = zlib.crc32(struct.pack('<QQ', iteration, self.rank))
        return zlib.crc32(block.tobytes()[4:], place) or 1

    def _stored_iterations(self) -> Optional[int]:
        """From the header, if it fits; None if there is no header."""
        try:
            with open(self.header_file, 'rb') as file:
                stored = dict(json.loads(file.read()))
            iterations = stored.pop('iterations')
            if type(iterations) is not int or 'fingerprint' not in stored:
                raise ValueError('not all entries are there')
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{self.header_file} is damaged ({error!r}), so that nobody '
                'knows what the labels beside it are of. Restore it, or '
                'delete the folder to record anew'
            ) from error
        different = fingerprint_difference(stored, self._header)
        if different:
            raise ValueError(
                f'The labels in {self.path} are of another run. Choose '
                'another `model.teacher_labels.path`, or delete the folder '
                'to record anew. Stored values -> present ones:\n' + '\n'.join(different)
            )
        return iterations

    def _open_to_read(self):
        stored = self._stored_iterations()
        for path in (self.header_file, self.file):
            if not osp.exists(path):
                raise FileNotFoundError(
                    errno.ENOENT,
                    "Nothing to replay. Record it with mode='record' or 'auto'. There is no",
                    path,
                )
        if stored < self.iterations:
            raise ValueError(
                f'{self.path} holds {stored:,} iterations, but '
                f"{self.iterations:,} are to be replayed: mode='auto' records "
                'the others'
            )
        size, whole = osp.getsize(self.file), stored * self._dtype.itemsize
        if size < whole:
            raise ValueError(
                f'{self.file} is short: {size:,} of {whole:,} bytes. Copy it '
                "anew, or record what is lost with mode='auto'"
            )

    def _open_to_write(self):
        stored = self._stored_iterations()
        deadline = time.monotonic() + HEADER_WAIT
        while stored is None and self.rank:
            if time.monotonic() > deadline:
                raise FileNotFoundError(
                    errno.ENOENT,
                    'Rank 0 has not made it in time. Has it failed, or has it another folder?',
                    self.header_file,
                )
            time.sleep(0.05)
            stored = self._stored_iterations()
        files = [
            path
            for path in (osp.join(self.path, f'rank{rank}.labels') for rank in range(self.world_size))
            if osp.exists(path)
        ]
        if stored is None and any(map(osp.getsize, files)):
            raise ValueError(
                f'{self.header_file} is missing, so that nobody knows what '
                'the labels beside it are of. Restore it, or delete the '
                'folder to record anew'
            )
        # A longer store remains as long.
        size = max(stored or 0, self.iterations) * self._dtype.itemsize
        folder = osp.abspath(self.path)
        while not osp.isdir(folder):
            folder = osp.dirname(folder)
        # Before the files' sizes, since other ranks grow theirs meanwhile.
        free = shutil.disk_usage(folder).free
        needed = size * self.world_size - sum(min(size, osp.getsize(path)) for path in files)
        if needed > free:
            self._refuse(needed, free)
        os.makedirs(self.path, exist_ok=True)
        self._take_lock()
        if self.rank:
            self._allocate(size)
            return
        print_log(f'Labels of the teacher: {self.summary}', 'current')
        stored = self._stored_iterations()  # may be new since the lock
        size = max(size, (stored or 0) * self._dtype.itemsize)
        # At first for no iterations: the room for them may be missing, but
        # blocks without a header would be refused after a kill.
        if stored is None:
            self._write_header(0)
        self._allocate(size)
        if stored != size // self._dtype.itemsize:
            self._write_header(size // self._dtype.itemsize)

    def _take_lock(self):
        lock = FileLock(self.file + '.lock', timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BlockingIOError(
                errno.EWOULDBLOCK,
                'Another run records these labels. Wait for its end, or choose another path',
                self.file,
            ) from None
        except NotImplementedError:
            return  # a file system without locks
        self._lock = lock

    def _write_header(self, iterations: int):
        header = json.dumps(dict(self._header, iterations=iterations))
        write_whole(self.header_file, header.encode())

    def _allocate(self, size: int):
        with open(self.file, 'ab') as file:
            try:
                reserve(file, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                free = shutil.disk_usage(self.path).free
                self._refuse(size - osp.getsize(self.file), free)

    def _refuse(self, needed: int, free: int):
        raise OSError(
            errno.ENOSPC,
            f'No room for the labels ({self.summary}): needed '
            f'are {needed / 1e6:,.1f} MB, free are {free / 1e6:,.1f} MB. Make '
            'room, or choose another path',
            self.path,
        )


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


def _block_dtype(batch_size: int, num_classes: int, topk: int) -> np.dtype:
    shape = (batch_size, topk) if topk else (batch_size,)
    index = '<u2' if num_classes <= 65535 else '<u4'
    fields = [('checksum', '<u4'), ('indices', index, shape)]
    return np.dtype(fields + [('probs', '<f2', shape)] * bool(topk))
