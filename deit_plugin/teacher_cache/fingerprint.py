"""The fingerprint of a run: what a teacher's answers depend on."""

import copy
import hashlib
import json
import os.path as osp

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints.downloads import content_hash, fetch, local_file
from ..datasets import ImageNet1k


def run_fingerprint(runner, model, seed: int) -> dict:
    """Everything that the teacher's answers in a run depend on, as JSON values.

    Args:
        runner (Runner): Of the training.
        model (DistilledClassifier): Its model, with ``teacher_labels``.
        seed (int): The one that all draws follow.
    """
    cfg = runner.cfg
    loader = copy.deepcopy(cfg.train_dataloader)
    teacher = copy.deepcopy(model.teacher.cfg)
    teacher.pop('checkpoint', None)
    if loader.get('sampler'):
        loader.sampler.pop('seed', None)  # SeedHook sets it
    wrapper = runner.optim_wrapper
    preprocessor = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    switches = [hook for hook in cfg.get('custom_hooks') or [] if 'SwitchRecipe' in str(hook.get('type'))]
    dataset = runner.train_dataloader.dataset
    return _plain(
        dict(
            draws=1,  # another number when the same seed draws other images
            dataset=dataset_listing_hash(dataset),
            files=_file_sizes(dataset),
            pipeline=_pipelines(loader.dataset),
            sampler=loader.get('sampler'),
            drop_last=loader.get('drop_last', False),
            data_preprocessor=preprocessor,
            mixing=cfg.model.get('train_cfg'),
            switches=switches,
            seed=seed,
            teacher=teacher,
            teacher_weights=_weights(model.teacher_labels),
            tau=model.teacher_labels.tau if model.teacher_labels.topk else None,
            precision=f'{type(wrapper).__name__} {getattr(wrapper, "cast_dtype", None)}',
            device=next(model.parameters()).device.type,
        )
    )


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


def _file_sizes(dataset) -> list:
    """Sizes in bytes of a sample of the files: resized copies have the same names."""
    if not hasattr(dataset, 'get_data_info'):
        return []
    some = range(0, len(dataset), max(1, len(dataset) // 100))
    paths = [dataset.get_data_info(i).get('img_path') for i in some]
    return [osp.getsize(p) for p in paths if p and osp.isfile(p)]


def _weights(labels) -> str:
    """The identity of the teacher's weights: name and hash."""
    cfg = labels.teacher.cfg
    checkpoint = cfg.get('checkpoint')
    if checkpoint is None:
        if cfg.get('pretrained') or cfg.get('init_cfg'):
            return 'as the config of the teacher says'
        raise ValueError('A teacher with random weights has nothing to teach: set `model.teacher.checkpoint`')
    name = osp.basename(checkpoint.rstrip('/'))
    path = local_file(checkpoint)
    if not osp.exists(path):
        try:  # the weights are not needed to replay
            with open(osp.join(labels.path, 'header.json')) as file:
                recorded = json.load(file)['fingerprint']['teacher_weights']
        except (OSError, KeyError, ValueError):
            recorded = ''
        if recorded.startswith(f'{name} '):
            print_log(
                f'The weights of the teacher, {checkpoint}, are not at hand: '
                'the labels are compared by the name of the file',
                logger='current',
            )
            return recorded
        if labels.mode == 'replay':
            return f'{name} (not at hand)'
        path = fetch(checkpoint)
    return f'{name} {content_hash(path)}'


def _plain(value):
    if isinstance(value, (dict, Config)):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
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
