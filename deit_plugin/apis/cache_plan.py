"""What a folder of cached images will hold, and how far it is."""

import errno
import hashlib
import io
import json
import os
import os.path as osp
import shutil
import time
from collections.abc import Callable, Iterable

import numpy as np
import PIL
import torch

from ..checkpoints.atomic import write_whole
from ..datasets.cached import (
    FORMAT,
    HEADER,
    INDEX,
    ROWS,
    image_key,
    read_cache_header,
    read_index,
    shard_name,
)
from ..datasets.jpeg import choose_decoder
from ..messages import some
from ..teacher_cache.fingerprint import fingerprint_difference
from .cache_shards import ShardTask, read_sizes, scaled, write_shard

# A worker of a training has each shard open, and a process may have 1,024 files.
MOST_SHARDS, LEAST_IMAGES = 256, 256
MARGIN = 1.02  # of the free space over what is needed


def _keys(paths: list[str]) -> tuple[int, np.ndarray]:
    """How many parts of the paths tell them apart, and the keys of these, uint64 (N, )."""
    deepest = max(path.count('/') for path in paths) + 1
    for parts in range(3, max(deepest, 3) + 1):  # split, class and file, as far as there are
        keys = np.array([image_key(path, parts) for path in paths], np.uint64)
        if len(np.unique(keys)) == len(keys):
            return parts, keys
    raise ValueError('Two images have the same hash of 64 bits: rename one of them')


class CachePlan:
    """The images of a folder, where each stands there, and what is still to be written.

    Args:
        folder (str): The folder, which is locked.
        paths (list[str]): Of the images, N.
        side (int): Their short side in pixels.
        data (str): What the data set is called, for messages.

    Attributes:
        sizes (np.ndarray): Heights and widths in pixels in the folder, int64 (2, N); 0 of a broken image.
        header (dict): Of the folder.

    Raises:
        FileNotFoundError: If an image is missing.
        ValueError: If the images cannot be told apart.
    """

    def __init__(self, folder: str, paths: list[str], side: int, data: str):
        self.folder, self.paths, self.side = folder, paths, side
        parts, self._keys = _keys(paths)
        self._order = np.argsort(self._keys)
        self._file_bytes = np.array([_file_bytes(path) for path in paths], np.uint64)
        self._each = max(LEAST_IMAGES, -(-len(paths) // MOST_SHARDS))
        self.shards = -(-len(paths) // self._each)
        names = '\0'.join('/'.join(path.split('/')[-parts:]) for path in paths)
        self._identity = dict(
            format=FORMAT,
            side=side,
            images=len(paths),
            shards=self.shards,
            name_parts=parts,
            names_sha256=hashlib.sha256(names.encode(errors='surrogateescape')).hexdigest(),
        )
        self.sizes = np.zeros((2, len(paths)), np.int64)
        self.header = self._identity
        self._data = data

    def num_bytes(self, start: int = 0, stop: int | None = None) -> int:
        """Of the pixels of some images."""
        return int(3 * self.sizes[:, start:stop].prod(0).sum())

    def index(self) -> np.ndarray:
        """As it is in the file."""
        shard = np.arange(len(self.paths)) // self._each
        lengths = 3 * self.sizes.prod(0)
        ends = np.cumsum(lengths)
        begins = ends - lengths
        offset = begins - begins[shard * self._each]
        rows = (self._keys, shard, offset, *self.sizes, self._file_bytes)
        return np.stack([np.asarray(row, np.uint64)[self._order] for row in rows])

    def prepare(self, run: Callable, broken: str):
        """Read what a stopped run planned, or the headers of all images, and write the plan."""
        stored = osp.exists(osp.join(self.folder, HEADER))
        if stored:
            self._read_plan(run, broken)
        else:
            self._read_sizes(run, broken, np.arange(len(self.paths)))
        self._refuse_all_broken()
        needed = sum(self.num_bytes(*self._span(i)) for i in self.missing())
        needed += 0 if stored else 8 * len(ROWS) * len(self.paths)
        free = _free_bytes(self.folder)
        print(
            f'{len(self.paths):,} images with a short side of {self.side} pixels at most have '
            f'{size(self.num_bytes())} by their headers, in {self.shards} shards. To be written are '
            f'{size(needed)}; {size(free)} are free in {self.folder}',
            flush=True,
        )
        if needed * MARGIN > free:
            raise OSError(
                errno.ENOSPC,
                f'No room: needed are {size(needed)} and a margin of {MARGIN - 1:.0%}, free are '
                f'{size(free)}. Make room, choose another disk, or a smaller --side than {self.side}',
                self.folder,
            )
        if not stored:
            self._write_plan()

    def _read_plan(self, run: Callable, broken: str):
        self.header = read_cache_header(self.folder)
        stored = {name: self.header.get(name) for name in self._identity}
        if different := fingerprint_difference(stored, self._identity):
            raise ValueError(
                f'{self.folder} holds other images than this config has, or of another side. Choose another '
                'folder, or delete this one. Stored values -> present ones:\n' + '\n'.join(different)
            )
        index = read_index(self.folder, self.header)
        rows = np.empty_like(index)
        rows[:, self._order] = index
        self.sizes = rows[3:5].astype(np.int64)
        if not np.array_equal(index[:5], self.index()[:5]):
            raise ValueError(
                f'{osp.join(self.folder, INDEX)} is damaged: delete the folder, and write it anew'
            )
        changed, left_out = rows[5] != self._file_bytes, self.sizes[0] == 0
        written = ~np.isin(np.arange(len(self.paths)) // self._each, self.missing())
        self._refuse_changed(np.flatnonzero(changed & ~left_out & written), rows[5])
        self._refuse_left_out(np.flatnonzero(changed & left_out & written), mended=True)
        if broken == 'raise':
            self._refuse_left_out(np.flatnonzero(left_out & written), mended=False)
        again = np.flatnonzero((changed | left_out) & ~written)  # such as a broken image that was mended
        if len(again):
            self._read_sizes(run, broken, again)
            self._write_plan()

    def _refuse_changed(self, which: np.ndarray, stored: np.ndarray):
        if len(which):
            i = which[0]
            raise ValueError(
                f'{self.paths[i]} has {self._file_bytes[i]:,} bytes, but had {stored[i]:,} when it was '
                f'written to {self.folder}: that is another data set, or the file was changed. Choose '
                'another folder, or delete this one'
            )

    def _refuse_left_out(self, which: np.ndarray, mended: bool):
        if not len(which):
            return
        names = some([shard_name(i) for i in np.unique(which // self._each).tolist()], 20)
        one = f'{self.paths[which[0]]} was broken and is left out of {self.folder} ({len(which):,} in all)'
        delete = f'delete {names} there, and the same command goes on'
        if mended:
            raise ValueError(f'{one}, but was changed since: {delete}')
        raise OSError(f'{one}. Mend it, {delete}; or leave such out: --broken skip')

    def _refuse_all_broken(self):
        if not self.sizes.any():
            raise OSError(
                f'All {len(self.paths):,} images are broken, such as {self.paths[0]}: there is nothing to '
                'train on. Mend them, or name another data set'
            )

    def _read_sizes(self, run: Callable, broken: str, which: np.ndarray):
        print(f'The sizes of {len(which):,} images are read', flush=True)
        chunks = [which[i : i + 1024] for i in range(0, len(which), 1024)]
        tasks = [(chunk, [self.paths[i] for i in chunk]) for chunk in chunks]
        reasons: list[str] = []
        for chunk, sizes, failed in run(read_sizes, tasks):
            self.sizes[:, chunk] = scaled(sizes, self.side)
            reasons += failed
        if reasons and broken == 'raise':
            raise OSError(f'{reasons[0]} ({len(reasons)} in all). Mend it, or leave such out: --broken skip')
        _tell(reasons)

    def _write_plan(self):
        self._write_index()
        self.header = dict(
            self._identity,
            data=self._data,
            bytes=self.num_bytes(),
            pixels='uint8 (bytes, ), the images of a shard one after another, each (H, W, 3) in RGB',
            index=f'uint64 (6, images), in the order of the keys, with the rows {", ".join(ROWS)}',
            decoder=choose_decoder('auto'),
            resizer='bicubic with antialiasing, deit_plugin.datasets.jpeg.resize',
            versions=dict(numpy=np.__version__, torch=torch.__version__, Pillow=PIL.__version__),
            use="dict(type='LoadCached', path=THIS_FOLDER) first in the pipeline of a training",
        )
        write_whole(osp.join(self.folder, HEADER), json.dumps(self.header, indent=1).encode())

    def _write_index(self):
        content = io.BytesIO()
        np.save(content, self.index())
        write_whole(osp.join(self.folder, INDEX), content.getvalue())

    def missing(self) -> list[int]:
        """The shards that are not there."""
        return [i for i in range(self.shards) if not osp.exists(osp.join(self.folder, shard_name(i)))]

    def _span(self, shard: int) -> tuple[int, int]:
        return shard * self._each, min((shard + 1) * self._each, len(self.paths))

    def write(self, run: Callable, broken: str):
        """Write the shards that are missing."""
        missing, begun, done = self.missing(), time.monotonic(), 0
        spans = [slice(*self._span(i)) for i in missing]
        tasks = [
            ShardTask(self.folder, i, self.paths[s], self.sizes[:, s], self.side, broken)
            for i, s in zip(missing, spans)
        ]
        total = sum(s.stop - s.start for s in spans)
        for number, part, failed in run(write_shard, tasks):
            start, stop = self._span(number)
            if failed:  # before the shard is there, so that none is taken for whole
                self.sizes[:, [start + i for i in failed]] = 0
                self._write_index()
                _tell(failed.values())
            os.replace(part, osp.join(self.folder, shard_name(number)))
            done += stop - start
            rate = done / (time.monotonic() - begun)
            left = (total - done) / rate / 60
            print(f'{done:,} of {total:,} images, {rate:,.0f} a second, {left:,.1f} min left', flush=True)
        self._refuse_all_broken()


def _file_bytes(path: str) -> int:
    """0 where they are not known."""
    return 0 if '://' in path else os.stat(path).st_size


def _tell(reasons: Iterable[str]):
    for reason in reasons:
        print(f'{reason}. It is left out', flush=True)


def size(number: float) -> str:
    """Bytes in words."""
    return f'{number / 1e9:,.1f} GB' if number >= 1e9 else f'{number / 1e6:,.1f} MB'


def _free_bytes(folder: str) -> int:
    """Free bytes on the disk where a folder is, or will be."""
    folder = osp.abspath(folder)
    while not osp.isdir(folder):
        folder = osp.dirname(folder)
    return shutil.disk_usage(folder).free
