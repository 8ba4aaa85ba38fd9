"""Images that were decoded and resized once, and are mapped into memory (FFCV's idea,
github.com/libffcv/ffcv).

A folder holds ``header.json``; ``index.npy``, uint64 (6, N), with the rows of ``ROWS``, in the order of the
keys; and ``shard-0000.npy``, ..., uint8 (bytes, ), the images one after another, each (H, W, 3) in RGB.
``deit-plugin cache`` writes it.
"""

import hashlib
import logging
import os
import os.path as osp

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.logging import print_log
from mmpretrain.registry import TRANSFORMS

from ..json_file import read_json
from ..messages import shown, some

FORMAT = 1
HEADER, INDEX = 'header.json', 'index.npy'
# Of an image: the hash of its name, its shard, its first byte there, its size in pixels (0 if it is broken),
# and the bytes of the file that it was read from (0 if unknown).
ROWS = ('key', 'shard', 'offset', 'height', 'width', 'file_bytes')
COMPARED = 32  # files in each process whose size is compared


def shard_name(number: int) -> str:
    """The file of a shard, counted from 0."""
    return f'shard-{number:04d}.npy'


def image_key(path: str, parts: int) -> int:
    """A hash of 64 bits of an image's name: the last parts of its path, wherever its root is."""
    name = '/'.join(path.split('/')[-parts:])
    digest = hashlib.blake2b(name.encode(errors='surrogateescape'), digest_size=8).digest()
    return int.from_bytes(digest, 'little')


def read_cache_header(folder: str) -> dict:
    """What ``header.json`` says, of which the numbers are checked.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, or of another format.
    """
    path = osp.join(folder, HEADER)
    try:
        header = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(
            f'There are no cached images in {folder!r} ({osp.abspath(folder)}): it has no {HEADER}. Write '
            f'them: `deit-plugin cache CONFIG --output {folder}`'
        ) from None
    except ValueError as error:
        raise ValueError(_no_header(path, error)) from error
    numbers = [header.get(name) for name in _NUMBERS] if isinstance(header, dict) else [None]
    if any(type(number) is not int or number < 1 for number in numbers):
        raise ValueError(_no_header(path, shown(header)))
    if header['format'] != FORMAT:
        raise ValueError(
            f'{folder} has the format {header["format"]}, this version reads {FORMAT}: write it anew'
        )
    return header


def _no_header(path: str, reason) -> str:
    # The folder may be of something else, so nobody is told to delete it.
    return f'{path} is damaged, or not of cached images ({reason}): write these to another folder'


_NUMBERS = ('format', 'side', 'images', 'shards', 'name_parts')


def read_index(folder: str, header: dict) -> np.ndarray:
    """The index, uint64 (6, N), mapped into memory.

    Raises:
        ValueError: If it is missing, damaged, or not that of the header.
    """
    path, shape = osp.join(folder, INDEX), (len(ROWS), header['images'])
    try:
        index = np.load(path, mmap_mode='r').view(np.ndarray)
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} is damaged ({error}): delete the folder, and write it anew') from error
    if index.dtype != np.uint64 or index.shape != shape:
        raise ValueError(
            f'{path} is damaged: it has {index.dtype} {index.shape}, not uint64 {shape}. Delete the folder, '
            'and write it anew'
        )
    return index


def check_shards(folder: str, header: dict, index: np.ndarray) -> None:
    """Whether all shards are there and as long as the index says.

    Raises:
        ValueError: If not.
    """
    _, shard, offset, height, width, _ = index
    missing = [
        name for i in range(header['shards']) if not osp.isfile(osp.join(folder, name := shard_name(i)))
    ]
    if missing:
        raise ValueError(
            f'{folder} is not complete, {len(missing)} of {header["shards"]} shards are missing '
            f'({some(missing)}): the `deit-plugin cache` that began it goes on where it stopped'
        )
    ends = np.zeros(header['shards'], np.uint64)
    if shard.max() >= header['shards']:
        raise ValueError(f'{osp.join(folder, INDEX)} is damaged: delete the folder, and write it anew')
    np.maximum.at(ends, shard.astype(np.int64), offset + 3 * height * width)
    for number, end in enumerate(ends.tolist()):
        path = osp.join(folder, shard_name(number))
        try:
            found = np.load(path, mmap_mode='r')
            fits = found.dtype == np.uint8 and found.shape == (end,)
        except (OSError, ValueError) as error:  # such as a file shorter than it says
            raise ValueError(_damaged(path, error)) from error
        if not fits:
            raise ValueError(_damaged(path, f'{found.dtype} {found.shape}, not uint8 ({end},)'))


def _damaged(path: str, reason) -> str:
    return f'{path} is damaged ({reason}): delete it, and `deit-plugin cache` writes it anew'


@TRANSFORMS.register_module()
class LoadCached(BaseTransform):
    """Take an image from those that ``deit-plugin cache`` has decoded and resized.

    It stands before :class:`LoadRandomResizedCrop`, which then neither decodes nor resizes the whole image.
    An image is found by the hash of its name, so its order and repetitions do not matter. That it is not
    another of the same name is told by the size of its file, which each process compares for its first 32
    images, where the files are still there.

    Required key: ``img_path``. Added keys: ``img``, (H, W, 3) uint8 BGR, a view of the mapped file that
    cannot be written to; ``img_shape`` and ``ori_shape``.

    Args:
        path (str): The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is not complete, or damaged.
    """

    def __init__(self, path: str):
        self.path = os.fspath(path)
        self.header = read_cache_header(self.path)
        index = read_index(self.path, self.header)
        check_shards(self.path, self.header, index)
        if broken := int(np.count_nonzero(index[3] == 0)):
            print_log(
                f'{broken} images were broken when {self.path} was written: others are taken for them',
                logger='current',
                level=logging.WARNING,
            )
        self._close()

    def _close(self):
        self._index: np.ndarray | None = None
        self._shards: dict[int, np.ndarray] = {}
        self._to_compare = COMPARED

    def __getstate__(self):
        # A pickled map would be all of it in memory.
        return dict(path=self.path, header=self.header)

    def __setstate__(self, state: dict):
        self.__dict__.update(state)
        self._close()

    def transform(self, results: dict) -> dict | None:
        """Take the image that ``results['img_path']`` names.

        Returns:
            dict | None: None for an image that was broken, for which the dataset takes another one.

        Raises:
            ValueError: If it is not among the cached images, or its file is another one.
        """
        path = results.get('img_path')
        if path is None or 'img' in results:
            raise ValueError(
                'LoadCached needs the path of an image that is not loaded yet (`img_path`, no `img`): put it '
                f'first in the pipeline, in place of another loader; got {some(sorted(results))}'
            )
        shard, offset, height, width, file_bytes = self._find(path)
        if self._to_compare and file_bytes:
            self._compare(path, file_bytes)
        if not height:
            return None
        pixels = self._shard(shard)[offset : offset + 3 * height * width]
        # As RGB on the disk: what crops turns the channels back, and copies whole rows.
        results['img'] = pixels.reshape(height, width, 3)[..., ::-1]
        results['img_shape'] = results['ori_shape'] = (height, width)
        return results

    def _find(self, path: str) -> list[int]:
        if self._index is None:
            self._index = read_index(self.path, self.header)
        key = np.uint64(image_key(path, self.header['name_parts']))
        at = int(np.searchsorted(self._index[0], key))
        if at == self._index.shape[1] or self._index[0, at] != key:
            name = '/'.join(path.split('/')[-self.header['name_parts'] :])
            raise ValueError(
                f'{path} is not among the cached images: {self.path} has {self.header["images"]:,} of '
                f'{shown(self.header.get("data"))}, none is named {name}. Leave LoadCached out, or cache '
                'this data set'
            )
        return self._index[1:, at].tolist()

    def _compare(self, path: str, file_bytes: int):
        self._to_compare -= 1
        try:
            present = os.stat(path).st_size
        except OSError:  # the files are not needed
            return
        if present != file_bytes:
            raise ValueError(
                f'{path} has {present:,} bytes, but the image of this name in {self.path} was read from '
                f'{file_bytes:,}: that is another data set, or the file was changed. Cache this one anew'
            )

    def _shard(self, number: int) -> np.ndarray:
        if number not in self._shards:
            path = osp.join(self.path, shard_name(number))
            self._shards[number] = np.load(path, mmap_mode='r').view(np.ndarray)
        return self._shards[number]

    def __repr__(self) -> str:
        return f'{type(self).__name__}(path={self.path!r})'
