"""Config files that a user names."""

import os.path as osp

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import RUNNERS

from ..engine.own_images import complete
from ..engine.runner import FineTuneRunner
from .hub import variants


def read_config(path: str, changes: dict | None = None) -> Config:
    """Read a config with a model.

    Args:
        path (str): The file. One in Python style (``with read_base()``) need not set ``default_scope``.
        changes (dict, optional): As of ``--cfg-options``.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it has no model, or the changes do not fit.
    """
    cfg = _read(path, changes)
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{path} is no config of a training: it has no `model`')
    return cfg


def _read(path: str, changes: dict | None) -> Config:
    cfg = Config.fromfile(path)
    try:
        cfg.merge_from_dict(changes or {})
    except (KeyError, TypeError) as error:  # mmengine's
        raise ValueError(f'--cfg-options do not fit {path}: {str(error).strip()}') from error
    # Classes need no scope, but the names that commands and packages put beside them do.
    cfg.default_scope = cfg.get('default_scope') or 'mmpretrain'
    return cfg


def read_data_config(path: str, changes: dict | None = None) -> Config:
    """As :func:`read_config`, for what concerns the data alone; the model may be missing.

    A config for one's own images is completed from these, as :class:`FineTuneRunner` does. Its student has
    then no teacher, which may not be trained yet.

    Raises:
        FileNotFoundError: If there is no such file, or a config for one's own images finds none.
        ValueError: If these do not fit.
    """
    cfg = _read(path, changes)
    if is_for_own_images(cfg):
        if 'model' in cfg:  # else the teacher itself is trained
            cfg.teacher = cfg.teacher_checkpoint = None
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            complete(cfg)
        cfg.runner_type = 'mmpretrain.DeiTRunner'
    return cfg


def read_model_config(path: str) -> Config:
    """As :func:`read_config`, for the model that was trained by it.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it has no model, or one that only the images of its training complete.
    """
    cfg = read_config(path)
    if is_for_own_images(cfg):
        raise ValueError(
            f'{path} is completed from the images that it trains on: name the config in the work folder of '
            'that training, or none at all, for its checkpoints record their model'
        )
    return cfg


def named_config(name: str) -> Config:
    """The config of a variant, or as :func:`read_model_config`.

    Args:
        name (str): Of a variant, or a file.

    Raises:
        ValueError: If it is neither, or a file without a whole model.
    """
    if name in variants():
        return ModelHub.get(name).config
    if osp.isfile(name):
        return read_model_config(name)
    raise ValueError(f'--config {name!r} is no variant and no file: choose from {", ".join(variants())}')


def is_for_own_images(cfg: Config) -> bool:
    """Whether a config leaves open what follows from one's own images (:class:`FineTuneRunner`)."""
    runner = cfg.get('runner_type')
    if isinstance(runner, str):
        runner = RUNNERS.get(runner)
    return isinstance(runner, type) and issubclass(runner, FineTuneRunner)


def type_name(step: dict) -> str:
    """The name of a step of a pipeline, without the path of its class or its scope."""
    kind = step['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__
