"""Decode and resize the images of a training once (:class:`LoadCached`)."""

import copy
import errno
import os
import os.path as osp
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from filelock import Timeout
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.datasets import ResizeEdge
from mmpretrain.registry import DATASETS

from ..checkpoints.atomic import PARTIAL, lock
from ..datasets import TorchResizeEdge
from ..datasets.cached import HEADER, INDEX, ROWS, check_shards
from ..datasets.simple_crop import CROP_NAMES
from ..messages import some
from .cache_plan import CachePlan
from .cache_shards import processes
from .configs import read_data_config, type_name

LOCK = 'cache.lock'
_RESIZES = tuple(resize.__name__ for resize in (ResizeEdge, TorchResizeEdge))
_SHARD = re.compile(r'shard-[0-9]{4}\.npy')
_PART = re.compile(rf'({_SHARD.pattern}|{re.escape(HEADER)}|{re.escape(INDEX)})\.\w+{re.escape(PARTIAL)}')


def cache(
    config: str,
    output: str,
    side: int = 256,
    workers: int | None = None,
    broken: str = 'raise',
    cfg_options: dict | None = None,
) -> dict:
    """Write the training images of a config for :class:`LoadCached`, or go on with it.

    Args:
        config (str): The config file of the training.
        output (str): The folder: a new one, or that of a run with the same images and side that was stopped.
        side (int): The short side in pixels that larger images are resized to. Defaults to 256.
        workers (int, optional): Processes; 0 for this one alone. Defaults to one for each core.
        broken (str): What is done with a broken image: ``'raise'`` an error, or ``'skip'`` it, so that a
            training takes another one for it. Defaults to ``'raise'``.
        cfg_options (dict, optional): Changes of the config.

    Returns:
        dict: ``output``, the folder; ``images``, ``broken`` of these, ``bytes`` of the pixels; and ``use``,
        lines for a config that trains on them.

    Raises:
        FileNotFoundError: If there is no such config, or an image of it.
        FileExistsError: If the folder holds something else.
        BlockingIOError: If another run writes there.
        ValueError: If an argument is out of range, the images are in no files, or the folder is of another
            side or other images.
        OSError: If an image is broken, all of them are, or the disk has no room.
    """
    if side < 1:
        raise ValueError(f'--side {side} must be a number of pixels')
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    if workers < 0 or broken not in ('raise', 'skip'):
        raise ValueError(
            f"Out of range: --workers {workers}, 0 or more; broken={broken!r}, 'raise' or 'skip'"
        )
    cfg = read_data_config(config, cfg_options)
    loader = cfg.get('train_dataloader') or {}
    if not loader.get('dataset'):
        raise ValueError(f'{config} has no train_dataloader with a dataset: take the config of a training')
    paths = image_paths(cfg)
    folder = osp.realpath(osp.expanduser(output))
    with _held(folder), processes(workers) as run:
        plan = CachePlan(folder, paths, side, type_name(loader.dataset))
        _note_small(cfg, side)
        plan.prepare(run, broken)
        plan.write(run, broken)
    check_shards(folder, plan.header, plan.index())
    return dict(
        output=folder,
        images=len(paths),
        broken=int(np.count_nonzero(plan.sizes[0] == 0)),
        bytes=plan.num_bytes(),
        use=_use(config, folder, loader.dataset),
    )


def image_paths(cfg: Config) -> list[str]:
    """The files of the training images of a config, each once, in order.

    Raises:
        ValueError: If the data set cannot be built, or has images that are no files.
    """
    dataset_cfg = _without_pipelines(cfg.train_dataloader.dataset)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        try:
            dataset = DATASETS.build(dataset_cfg)
        except (KeyError, TypeError, AssertionError) as error:  # mmengine's and mmpretrain's
            raise ValueError(f'The data set cannot be built: {str(error).strip()}') from error
    if not hasattr(dataset, 'get_data_info'):
        raise ValueError(f'{type(dataset).__name__} does not list its images: it has no get_data_info')
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    paths = dict.fromkeys(info.get('img_path') if 'img' not in info else None for info in infos)
    if not paths or None in paths:
        raise ValueError(
            f'{type(dataset).__name__} has {"its images in memory" if paths else "no images"}, so there is '
            'nothing to decode once'
        )
    return list(paths)


def _without_pipelines(cfg):
    """One that takes images from the cache cannot be built before it is written."""
    if isinstance(cfg, dict):
        return type(cfg)({k: [] if k == 'pipeline' else _without_pipelines(v) for k, v in cfg.items()})
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(map(_without_pipelines, cfg))
    return copy.deepcopy(cfg)


@contextmanager
def _held(folder: str) -> Iterator[None]:
    """Make the folder, and hold its lock."""
    if osp.exists(folder):
        if not osp.isdir(folder):
            raise FileExistsError(f'--output {folder} is a file: name a folder')
        if others := _others(folder):
            raise FileExistsError(
                f'--output {folder} holds something else, {some(others)}: name a new folder'
            )
    os.makedirs(folder, exist_ok=True)
    try:
        held = lock(osp.join(folder, LOCK), patience=0)
    except Timeout:
        raise BlockingIOError(
            errno.EWOULDBLOCK,
            'Another run writes these images. Wait for its end, or choose another folder',
            folder,
        ) from None
    try:
        _remove_parts(folder)
        yield
    except KeyboardInterrupt:
        print(f'What is done stays in {folder}: the same command goes on', flush=True)
        raise
    finally:
        _remove_parts(folder)
        if held is not None:
            held.release()


def _others(folder: str) -> list[str]:
    """The names that are not of a run here, finished or stopped."""
    names = set(os.listdir(folder))
    ours = {LOCK, *filter(_PART.fullmatch, names)}
    if HEADER in names:
        ours |= {HEADER, INDEX, *filter(_SHARD.fullmatch, names)}
    elif INDEX in names and _is_index(osp.join(folder, INDEX)):  # stopped before it wrote the header
        ours.add(INDEX)
    return sorted(names - ours)


def _is_index(path: str) -> bool:
    try:
        index = np.load(path, mmap_mode='r')
    except (OSError, ValueError):
        return False
    return index.dtype == np.uint64 and index.ndim == 2 and len(index) == len(ROWS)


def _remove_parts(folder: str):
    for name in os.listdir(folder):
        if _PART.fullmatch(name):
            os.remove(osp.join(folder, name))


def _note_small(cfg: Config, side: int):
    largest = _largest_scale(cfg.train_dataloader, CROP_NAMES)
    if largest <= side:
        return
    evaluation = _largest_scale(cfg.get('val_dataloader') or cfg.get('test_dataloader') or {}, _RESIZES)
    advice = f'The evaluation resizes to {evaluation}: ' if evaluation else ''
    print(
        f'The crops of the training have {largest} pixels, those of images of {side} are all enlarged. '
        f'{advice}--side {max(evaluation, largest)}',
        flush=True,
    )


def _largest_scale(loader: Config, names: tuple[str, ...]) -> int:
    steps = (loader.get('dataset') or {}).get('pipeline') or []
    scales = [step.get('scale', 224) for step in steps if type_name(step) in names]
    return max((max(scale) if isinstance(scale, (list, tuple)) else scale for scale in scales), default=0)


def _use(config: str, folder: str, dataset: Config) -> str:
    step = f"dict(type='LoadCached', path={folder!r})"
    if 'pipeline' not in dataset:
        return f'{step} first in the pipeline of the data set'
    if any(type_name(item) == 'LoadCached' for item in dataset.pipeline):
        return f'{config} has a LoadCached already; its path is {folder!r}'
    return (
        f'_base_ = [{osp.abspath(config)!r}]\n'
        f'pipeline = [{step}, *_base_.train_dataloader.dataset.pipeline]\n'
        'train_dataloader = dict(dataset=dict(pipeline=pipeline))'
    )
