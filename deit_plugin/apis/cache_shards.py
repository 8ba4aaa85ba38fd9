"""The processes that decode and resize images, and what each does."""

import io
import os
import os.path as osp
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import NamedTuple

import cv2
import numpy as np
import torch
from mmengine import fileio
from PIL import Image

from ..checkpoints.atomic import PARTIAL
from ..datasets.cached import shard_name
from ..datasets.jpeg import choose_decoder, decode, describe_broken, read_header, resize

_stop = None  # in a worker: set when the run is stopped


class Stopped(RuntimeError):
    """The run was stopped."""


class ShardTask(NamedTuple):
    """A shard to write: of which paths, of the sizes (2, n) in pixels there; the rest as of :func:`cache`."""

    folder: str
    number: int
    paths: list[str]
    sizes: np.ndarray
    side: int
    broken: str


def read_sizes(chunk: tuple[np.ndarray, list[str]]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The sizes of images by their headers.

    Args:
        chunk (tuple[np.ndarray, list[str]]): The numbers of n images, and their paths.

    Returns:
        tuple: These numbers; heights and widths in pixels, int64 (2, n), 0 of a broken image; and a line
        about each of these.
    """
    numbers, paths = chunk
    sizes, reasons = np.zeros((2, len(paths)), np.int64), []
    for i, path in enumerate(paths):
        source = io.BytesIO(fileio.get(path)) if '://' in path else path
        try:
            with Image.open(source) as image:
                sizes[:, i] = image.height, image.width
        except FileNotFoundError:
            raise
        except Exception as error:  # Pillow's readers raise many kinds
            reasons.append(describe_broken(path, error))
    return numbers, sizes, reasons


@contextmanager
def processes(number: int) -> Iterator[Callable]:
    """A function that calls another one with each of some tasks, and gives what it returns, in any order.

    Args:
        number (int): Of the processes; 0 for this one.

    Raises:
        OSError: If a process was ended from outside.
    """
    if not number:
        yield map
        return
    context = get_context('spawn')  # a fork would take over the threads' locks
    stop = context.Event()
    pool = ProcessPoolExecutor(number, context, _begin, (stop,))

    def run(function, tasks):
        for future in as_completed([pool.submit(function, task) for task in tasks]):
            yield future.result()

    try:
        yield run
    except BrokenProcessPool as error:
        raise OSError(
            'A process was ended from outside, perhaps for lack of memory. What is done stays, and the same '
            f'command goes on; fewer than --workers {number} need less memory'
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _begin(stop):
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process gets it, too
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    # A worker whose parent was killed would wait for its next task for ever.
    connection.wait([parent_process().sentinel])
    os._exit(1)


def scaled(sizes: np.ndarray, side: int) -> np.ndarray:
    """The sizes of images whose short side is resized to ``side``; smaller ones stay.

    Args:
        sizes (np.ndarray): Heights and widths in pixels, int64 (2, n).
        side (int): In pixels.

    Returns:
        np.ndarray: As ``sizes``, rounded.
    """
    short = np.maximum(sizes.min(0), 1)
    return np.where(short > side, (2 * sizes * side + short) // (2 * short), sizes)


def write_shard(task: ShardTask) -> tuple[int, str, dict[int, str]]:
    """Decode and resize the images of a shard, and write it under another name.

    Returns:
        tuple: The number of the shard; the file, to be renamed; and of each broken image that is left out
        its number in the shard and a line about it.

    Raises:
        FileNotFoundError: If an image is missing.
        OSError: If one is broken, unless these are skipped, or the shard cannot be written.
        Stopped: If the run is stopped.
    """
    part = osp.join(task.folder, f'{shard_name(task.number)}.{os.getpid()}{PARTIAL}')
    try:
        return task.number, part, _write(part, task)
    except BaseException:
        if osp.exists(part):
            os.remove(part)
        raise


def _write(part: str, task: ShardTask) -> dict[int, str]:
    decoder = choose_decoder('auto')
    broken: dict[int, str] = {}
    with open(part, 'wb') as file:
        file.write(header := _npy_header(int(3 * task.sizes.prod(0).sum())))
        for i, (path, size) in enumerate(zip(task.paths, task.sizes.T)):
            if _stop is not None and _stop.is_set():
                raise Stopped('The run was stopped')
            if not size.all():  # its header is broken
                continue
            pixels = _pixels(path, size, task.side, decoder)
            if isinstance(pixels, str):
                broken[i] = pixels
                if task.broken == 'raise':
                    raise OSError(f'{pixels}. What is done stays. Mend it, or leave such out: --broken skip')
            else:
                file.write(pixels)
        if broken:  # numpy's header leaves room for another length
            length = file.tell() - len(header)
            file.seek(0)
            file.write(_npy_header(length))
        file.flush()
        os.fsync(file.fileno())
    return broken


def _npy_header(length: int) -> bytes:
    header = io.BytesIO()
    array = dict(descr='|u1', fortran_order=False, shape=(length,))
    np.lib.format.write_array_header_1_0(header, array)
    return header.getvalue()


def _pixels(path: str, size: np.ndarray, side: int, decoder: str) -> np.ndarray | str:
    """An image of that size, (H, W, 3) uint8 RGB; of a broken one a line about it."""
    data = fileio.get(path)
    try:
        image = decode(data, read_header(data), decoder)
        found = scaled(np.array(image.shape[:2])[:, None], side)[:, 0]
        if not np.array_equal(found, size):
            raise ValueError(f'its size is {image.shape[:2]} pixels, but its header says another one')
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds
        return describe_broken(path, error)
    if image.shape[:2] == tuple(size):
        return np.ascontiguousarray(image)
    return resize(image, tuple(size.tolist())).permute(1, 2, 0).contiguous().numpy()
