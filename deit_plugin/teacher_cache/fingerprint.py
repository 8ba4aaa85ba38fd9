"""The fingerprint of a run: what a teacher's answers depend on."""

import hashlib
import json
import os.path as osp

import cv2
import mmcv
import numpy as np
import PIL
import timm
import torch
from mmengine.config import Config

from ..datasets import ImageNet1k
from ..datasets.cached import LoadCached, read_cache_header
from ..datasets.seeded import batch_size_of
from ..virtual_processes import VirtualProcesses
from .weights import same_weights, teacher_weights, without_weights


def run_fingerprint(runner, model, seed: int, virtual: VirtualProcesses, asked: bool) -> dict:
    """What the teacher's answers in a run depend on, as JSON values.

    Args:
        runner (Runner): Of the training.
        model (DistilledClassifier): Its model, with ``teacher_labels``.
        seed (int): The one that all draws follow.
        virtual (VirtualProcesses): Of the recipe.
        asked (bool): Whether the teacher will be asked, so that its weights are needed.

    Returns:
        dict: ``recipe``, which must be the same, and ``recorded_on``: what changes the images by a level or
        the teacher's answers by a rounding. Neither depends on the number of real processes or their batch.

    Raises:
        ValueError: If the teacher has no weights.
        TypeError: If the data set does not tell its images.
    """
    cfg, labels = runner.cfg, model.teacher_labels
    sampler = dict(cfg.train_dataloader.get('sampler') or cfg.train_dataloader.get('batch_sampler') or {})
    for name in ('seed', 'processes', 'batch_size'):  # of the run, whatever the config says
        sampler.pop(name, None)
    loader = runner.train_dataloader
    recipe = dict(
        draws=2,  # another number when the same seed draws other images
        seed=seed,
        processes=virtual.number,
        batch_size=virtual.batch_size,
        steps=len(loader) // virtual.accumulated(batch_size_of(loader) or 0),
        dataset=_of_dataset(loader.dataset),
        sampler=sampler,
        pipeline=_of_pipelines(_pipelines(cfg.train_dataloader.dataset)),
        data_preprocessor=cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor'),
        mixing=cfg.model.get('train_cfg'),
        switches=[h for h in cfg.get('custom_hooks') or [] if 'SwitchRecipe' in str(h.get('type'))],
        teacher=without_weights(model.teacher.cfg),
        teacher_weights=teacher_weights(model.teacher.cfg, asked),
        num_classes=labels.num_classes,
        topk=labels.topk,
        tau=labels.tau if labels.topk else None,
    )
    return _plain(dict(recipe=recipe, recorded_on=_recorded_on(runner, model)))


def _recorded_on(runner, model) -> dict:
    wrapper, cfg = runner.optim_wrapper, runner.cfg.train_dataloader
    steps = getattr(getattr(runner.train_dataloader.dataset, 'pipeline', None), 'transforms', ())
    steps = [*steps, *(step for pipeline in _pipelines(cfg.dataset) for step in pipeline)]
    found = {}
    for name in _OF_LOADING:
        values = [_setting(step, name) for step in steps]
        found[name] = sorted({str(value) for value in values if value not in (None, 'auto')})
    modules = dict(torch=torch, timm=timm, Pillow=PIL, OpenCV=cv2, mmcv=mmcv)
    versions = {name: str(module.__version__) for name, module in modules.items()}
    return dict(
        found,
        versions=versions,
        cpu=torch.backends.cpu.get_cpu_capability(),
        device=next(model.parameters()).device.type,
        precision=f'{type(wrapper).__name__} {getattr(wrapper, "cast_dtype", None)}',
    )


# How an image is read, not what is made of it.
_OF_LOADING = ('decoder', 'on_device', 'imdecode_backend')


def _setting(step, name: str):
    return step.get(name) if isinstance(step, dict) else getattr(step, name, None)


def _of_pipelines(pipelines: list) -> list:
    """Without how images are read; of those that lie in a cache how large they are, not where."""
    found = []
    for pipeline in pipelines:
        steps = [{k: v for k, v in dict(step).items() if k not in _OF_LOADING} for step in pipeline]
        for step in steps:
            if _is_cached(step):
                step['side'] = read_cache_header(step.pop('path'))['side']
        found.append(steps)
    return found


def _is_cached(step) -> bool:
    kind = step.get('type')
    return kind is LoadCached or str(kind).rpartition('.')[2] == 'LoadCached'


def _pipelines(cfg) -> list:
    """The pipelines of a dataset and of those that it wraps."""
    found = []
    if isinstance(cfg, dict):
        if cfg.get('pipeline') is not None:
            found.append(cfg['pipeline'])
        for key, value in cfg.items():
            if key != 'pipeline':
                found += _pipelines(value)
    elif isinstance(cfg, (list, tuple)):
        for item in cfg:
            found += _pipelines(item)
    return found


def _of_dataset(dataset) -> dict:
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    # Beside a cache the files need not be there.
    sizes = [] if any(isinstance(step, LoadCached) for step in steps) else _file_sizes(dataset)
    return dict(images=len(dataset), listing=dataset_listing_hash(dataset), file_sizes=sizes)


def _file_sizes(dataset) -> list:
    """Sizes in bytes of a sample of the files: resized copies have the same names."""
    if not hasattr(dataset, 'get_data_info'):
        return []
    some = range(0, len(dataset), max(1, len(dataset) // 100))
    paths = [dataset.get_data_info(i).get('img_path') for i in some]
    return [osp.getsize(p) for p in paths if p and osp.isfile(p)]


def compare_fingerprints(path: str, stored: dict, present: dict) -> list[str]:
    """Compare the fingerprint in a file with that of a run.

    Args:
        path (str): The file.
        stored (dict): Its fingerprint.
        present (dict): That of the run. Weights that are not at hand have no hash, and are compared by name.

    Returns:
        list[str]: How they differ in what changes images and answers by a rounding.

    Raises:
        ValueError: If they differ in anything else.
    """
    recipe = dict(present['recipe'])
    recipe['teacher_weights'] = same_weights(
        stored['recipe'].get('teacher_weights'), recipe['teacher_weights']
    )
    if different := fingerprint_difference(stored['recipe'], recipe):
        raise ValueError(
            f'The labels in {path} are of another run. Choose another `model.teacher_labels.path`, train '
            'without a record, `model.teacher_labels=None`, or delete the folder to record anew. Stored '
            'values -> present ones:\n' + '\n'.join(different)
        )
    return fingerprint_difference(stored['recorded_on'], present['recorded_on'])


def _plain(value):
    if isinstance(value, (dict, Config)):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, str):  # a path elsewhere is another on another machine
        return osp.basename(value.rstrip('/')) if osp.isabs(osp.expanduser(value)) else value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return str(value)


def fingerprint_difference(stored: dict, present: dict, limit: int = 10) -> list[str]:
    """Where two fingerprints differ.

    Args:
        stored (dict): Nested values that JSON knows; a tuple is as a list.
        present (dict): To compare with.
        limit (int): The lines to return; one more counts those left out.

    Returns:
        list[str]: Lines ``a.b.0: stored value -> present value``, of long
        values what differs. Empty if all is the same.
    """
    old, new = _leaves(stored), _leaves(present)
    lines = []
    for path in {**old, **new}:
        pair = [old.get(path, 'absent'), new.get(path, 'absent')]
        if pair[0] == pair[1]:
            continue
        if max(map(len, pair)) > 60:
            start = max(0, len(osp.commonprefix(pair)) - 20)
            pair = [
                '...' * (start > 0) + text[start : start + 50] + '...' * (len(text) > start + 50)
                for text in pair
            ]
        lines.append(f'{path}: {pair[0]} -> {pair[1]}')
    left_out = len(lines) - limit
    return lines[:limit] + [f'and {left_out} more'] * (left_out > 0)


def _leaves(value, path: str = '') -> dict:
    """The JSON texts of the values in nested dicts and lists, by their dotted
    paths."""
    if isinstance(value, (list, tuple)) and value:
        value = dict(enumerate(value))
    if not isinstance(value, dict) or path and not value:
        return {path: json.dumps(value)}
    leaves = {}
    for key, item in value.items():
        leaves.update(_leaves(item, f'{path}.{key}' if path else str(key)))
    return leaves


def dataset_listing_hash(dataset) -> str:
    """A hash of a data set's images, their order and labels.

    An image counts as its path below the dataset's prefix, so that the same
    data under another root are the same. Where there is no prefix, as in
    wrappers of several datasets, it counts as the names of its folder and its
    file, in most layouts the class and the image. (The serialised list that a
    dataset holds would be quicker to hash, but has the root in each path.) An
    image that is no file (``img``) counts as its values. A million images
    take some 4 s, of an :class:`ImageNet1k` a tenth of a second.

    Args:
        dataset (BaseDataset): Of mmengine, or a wrapper of such.

    Returns:
        str: A SHA-256, 64 hexadecimal digits.

    Raises:
        TypeError: If the dataset does not tell its images.
    """
    if not hasattr(dataset, 'get_data_info'):
        raise TypeError(f'{type(dataset).__name__} does not list its images: it has no get_data_info')
    listing = hashlib.sha256()
    if isinstance(dataset, ImageNet1k):  # it keeps just what is hashed
        listing.update(dataset.listing)
        return listing.hexdigest()
    prefix = getattr(dataset, 'data_prefix', {}).get('img_path') or ''
    prefix = prefix.rstrip('/') + '/'
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if 'img_path' in info:
            name = info['img_path']
            name = (
                name[len(prefix) :]
                if name.startswith(prefix) and prefix != '/'
                else '/'.join(name.split('/')[-2:])
            )
        elif 'img' in info:
            image = np.ascontiguousarray(info['img'])
            name = f'{image.shape} {image.dtype} ' + hashlib.sha256(image.tobytes()).hexdigest()
        else:
            raise TypeError(f'{type(dataset).__name__} lists neither img_path nor img, but {sorted(info)}')
        label = info.get('gt_label')
        if isinstance(label, (np.ndarray, np.generic)):
            label = label.tolist()
        listing.update(f'{name}\0{label}\0'.encode(errors='surrogateescape'))
    return listing.hexdigest()
