"""The store of a teacher's answers on disk."""

import errno
import json
import os
import os.path as osp
import time

import numpy as np
from mmengine.logging import print_log

from .blocks import block_dtype, check_sizes, checksum, make_block
from .disk import free_bytes, lock_labels, reserve
from .header import Header

FORMAT = 1
HEADER_WAIT = 60  # seconds that the other ranks give rank 0
FLUSH_INTERVAL = 1000  # blocks


class LabelStore:
    """The teacher's classes for each image of a run, by iteration.

    A folder with ``header.json`` and, for each rank, a file ``rank0.labels``, ... of one block an
    iteration: a checksum (uint32), the class indices (uint16, or uint32 above 65,535 classes) and, with
    ``topk``, their probabilities (float16). A block whose checksum is 0 is a hole: not recorded.

    A process that is killed leaves holes, never wrong labels. A power cut may lose what was recorded since
    the last :meth:`flush`; a block that is only partly on the disk does not match its checksum.

    Args:
        path (str): The folder, one for all ranks.
        mode (str): ``'record'`` or ``'auto'`` to create the store or go on with it (they open it alike;
            with ``'auto'`` the caller is to read first), ``'replay'`` to only read it.
        fingerprint (dict): All that the labels depend on, in values that JSON knows.
        iterations (int): The iterations of the whole run. A longer store serves too; a shorter one grows,
            unless it is replayed.
        batch_size (int): Images in an iteration of one rank.
        num_classes (int): Classes of the teacher.
        rank (int): This process, 0 to ``world_size`` - 1. Rank 0 writes the header, for which the others
            wait. Defaults to 0.
        world_size (int): The number of processes. Defaults to 1.
        topk (int): Classes to keep for each image, with probabilities. 0 keeps one class without a
            probability. Defaults to 0.

    Raises:
        ValueError: If an argument is out of range, if the store differs in anything but its length, if its
            header is damaged, or if it is too short to be replayed.
        FileNotFoundError: If there is nothing to replay.
        BlockingIOError: If another process records into the same file.
        OSError: With ``errno.ENOSPC``, if the disk lacks the room.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        mode: str,
        fingerprint: dict,
        iterations: int,
        batch_size: int,
        num_classes: int,
        rank: int = 0,
        world_size: int = 1,
        topk: int = 0,
    ):
        check_sizes(mode, iterations, batch_size, num_classes, rank, world_size, topk)
        self.path, self.mode, self.rank = os.fspath(path), mode, rank
        self.file = osp.join(self.path, f'rank{rank}.labels')
        self.iterations, self.num_classes = int(iterations), int(num_classes)
        self.batch_size, self.world_size = int(batch_size), int(world_size)
        self.topk = int(topk)
        self._dtype = block_dtype(batch_size, num_classes, topk)
        values = dict(
            format=FORMAT,
            dtype=self._dtype['indices'].base.name,
            batch_size=self.batch_size,
            world_size=self.world_size,
            num_classes=self.num_classes,
            topk=self.topk,
            fingerprint=json.loads(json.dumps(fingerprint)),
        )
        self._header = Header(osp.join(self.path, 'header.json'), values)
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
        view = self._view(iteration)
        if self.mode == 'replay':
            raise ValueError(f'{self.path} is replayed: it takes no labels')
        block = make_block(self._dtype, self.num_classes, indices, probs)
        # A kill between any two of these lines leaves a hole.
        view['checksum'] = 0
        for name in ('indices', 'probs') if self.topk else ('indices',):
            view[name] = block[name]
        view['checksum'] = checksum(block, iteration, self.rank)
        self._unflushed += 1
        if self._unflushed >= FLUSH_INTERVAL:
            self.flush()

    def read(self, iteration: int) -> None | np.ndarray | tuple[np.ndarray, np.ndarray]:
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
        if block['checksum'][0] != checksum(block, iteration, self.rank):
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
        return int(np.count_nonzero(self._open()['checksum']))

    def flush(self) -> None:
        """Write what is recorded to the disk."""
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

    def _open(self) -> np.ndarray:
        if self._blocks is None:
            raise ValueError(f'The label store {self.path} is closed')
        return self._blocks

    def _view(self, iteration: int) -> np.ndarray:
        blocks = self._open()
        if not 0 <= iteration < self.iterations:
            raise IndexError(f'Iteration {iteration} is not within 0 to {self.iterations - 1}')
        return blocks[iteration : iteration + 1]

    def _open_to_read(self):
        stored = self._header.stored_iterations()
        for path in (self._header.path, self.file):
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
        stored = self._await_header()
        files = [osp.join(self.path, f'rank{rank}.labels') for rank in range(self.world_size)]
        files = [path for path in files if osp.exists(path)]
        if stored is None and any(map(osp.getsize, files)):
            raise ValueError(
                f'{self._header.path} is missing, so the run that the labels beside it belong to is unknown. '
                'Restore it, or delete the folder to record anew'
            )
        # A longer store remains as long.
        size = max(stored or 0, self.iterations) * self._dtype.itemsize
        # Before the files' sizes, since other ranks grow theirs meanwhile.
        free = free_bytes(self.path)
        needed = size * self.world_size - sum(min(size, osp.getsize(path)) for path in files)
        if needed > free:
            self._refuse(needed, free)
        os.makedirs(self.path, exist_ok=True)
        self._lock = lock_labels(self.file)
        if self.rank:
            self._allocate(size)
            return
        print_log(f'Labels of the teacher: {self.summary}', 'current')
        stored = self._header.stored_iterations()  # may be new since the lock
        size = max(size, (stored or 0) * self._dtype.itemsize)
        # At first for no iterations: the room for them may be missing, but blocks without a header
        # would be refused after a kill.
        if stored is None:
            self._header.write(0)
        self._allocate(size)
        if stored != size // self._dtype.itemsize:
            self._header.write(size // self._dtype.itemsize)

    def _await_header(self) -> int | None:
        """The stored iterations; the other ranks wait until rank 0 has written them."""
        stored = self._header.stored_iterations()
        deadline = time.monotonic() + HEADER_WAIT
        while stored is None and self.rank:
            if time.monotonic() > deadline:
                raise FileNotFoundError(
                    errno.ENOENT,
                    'Rank 0 has not made it in time. Has it failed, or has it another folder?',
                    self._header.path,
                )
            time.sleep(0.05)
            stored = self._header.stored_iterations()
        return stored

    def _allocate(self, size: int):
        with open(self.file, 'ab') as file:
            try:
                reserve(file, size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                free = free_bytes(self.path)
                self._refuse(size - osp.getsize(self.file), free)

    def _refuse(self, needed: int, free: int):
        raise OSError(
            errno.ENOSPC,
            f'No room for the labels ({self.summary}): needed '
            f'are {needed / 1e6:,.1f} MB, free are {free / 1e6:,.1f} MB. Make '
            'room, or choose another path',
            self.path,
        )
