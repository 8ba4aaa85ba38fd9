"""What is evaluated: the config of a model, its weights, its classes."""

import os.path as osp
from collections.abc import Mapping
from typing import NamedTuple

from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmpretrain.apis.model import ModelHub

from ..checkpoints.contents import weights_of
from ..checkpoints.reading import file_in
from ..checkpoints.recorded import config_of, meta_of, recorded_classes
from ..models.recorded import (
    num_classes_of_config,
    num_classes_of_weights,
    recorded_model,
    recorded_pipeline,
    set_num_classes,
)
from .configs import read_model_config, type_name
from .hub import variants

_SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors', '.h5', '')


class Evaluated(NamedTuple):
    """A model to evaluate.

    cfg (Config): Its config, with as many classes as the weights have.
    path (str): Of the weights.
    published (dict[str, float]): The accuracies ``top1`` and ``top5``, if they are of these classes.
    num_classes (int): How many there are.
    classes (list[str]): Their names, or [] if the checkpoint does not tell.
    """

    cfg: Config
    path: str
    published: dict[str, float]
    num_classes: int
    classes: list[str]


def model_of(name: str, weights: str | None) -> Evaluated:
    """What is evaluated by a name; the checkpoint is read once.

    Args:
        name (str): Of a variant, the path of a config, or ``weights`` itself, which then record their model.
        weights (str, optional): A file, a work folder, or a folder with the weights of variants.
    """
    if name == weights:
        path, published = file_in(weights), {}
    else:
        cfg, published, address = evaluated_config(name)
        path = weights_path(name, address, weights)
    checkpoint = CheckpointLoader.load_checkpoint(path, 'cpu', logger='silent')
    if name == weights:
        cfg = recorded_config(checkpoint, path)
    expected = num_classes_of_config(cfg.model)
    number = match_classes(cfg, checkpoint, path)
    if number != expected:
        published = {}  # of ImageNet
    return Evaluated(cfg, path, published, number, recorded_classes(meta_of(checkpoint), number))


def evaluated_config(name: str) -> tuple[Config, dict[str, float], str | None]:
    """The config of a variant or of a file, the published accuracies and the address of the weights."""
    if name not in variants():
        cfg = read_model_config(name)
        dataset = cfg.test_dataloader.dataset
        if not any(type_name(step).startswith('Load') for step in dataset.pipeline):
            dataset.pipeline = [dict(type='LoadImage'), *dataset.pipeline]  # its data set is no folder
        return cfg, {}, None
    info = ModelHub.get(name)
    metrics = info.results[0].metrics
    words = dict(top1='Top 1 Accuracy', top5='Top 5 Accuracy')
    published = {key: metrics[word] for key, word in words.items() if word in metrics}
    return info.config, published, info.weights


def recorded_config(checkpoint: Mapping, path: str) -> Config:
    """What the checkpoint of a training tells of its test."""
    recorded = config_of(meta_of(checkpoint))
    pipeline = [dict(type='LoadImage'), *recorded_pipeline(recorded)]
    loader = dict(
        dataset=dict(pipeline=pipeline),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    return Config(
        dict(
            model=recorded_model(recorded, weights_of(checkpoint, path), path),
            test_dataloader=loader,
            test_cfg=dict(),
            default_scope='mmpretrain',
        )
    )


def weights_path(name: str, published: str | None, folder: str | None) -> str:
    """Where the weights of a variant are.

    Args:
        name (str): Of the variant, or the path of a config.
        published (str, optional): The address of the published weights.
        folder (str, optional): A file, a work folder, or a folder with the weights of variants.

    Raises:
        FileNotFoundError: If there are none.
        ValueError: If neither a folder nor an address is given.
    """
    stem = osp.splitext(osp.basename(name))[0]
    if folder is None:
        if published is None:
            raise ValueError(f'the weights of {stem} are not published: give a folder with yours, --weights')
        return published
    candidates = [stem + suffix for suffix in _SUFFIXES]
    if published:
        candidates.insert(0, osp.basename(published))
    if osp.isfile(folder):
        return folder
    for candidate in candidates:
        if osp.exists(osp.join(folder, candidate)):
            return osp.join(folder, candidate)
    if osp.isfile(osp.join(folder, 'last_checkpoint')):
        return file_in(folder)
    raise FileNotFoundError(f'{folder} has none of {", ".join(candidates)}, and no training saved any there')


def match_classes(cfg: Config, checkpoint: Mapping, path: str) -> int:
    """Give the model as many classes as the checkpoint has; returns their number."""
    number = num_classes_of_weights(cfg.model, weights_of(checkpoint, path))
    if number:
        set_num_classes(cfg.model, number)
        for owner in (cfg, cfg.model):  # it makes one-hot labels
            if owner.get('data_preprocessor'):
                owner.data_preprocessor.num_classes = number
    return num_classes_of_config(cfg.model)
