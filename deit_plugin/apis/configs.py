"""Configs, as a training reads them."""

from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import RUNNERS

from ..engine.own_images import complete
from ..engine.runner import FineTuneRunner


def read_config(path: str, cfg_options: dict | None = None) -> Config:
    """Read the config of a training, for what concerns its data and its model.

    A config for one's own images is completed from these, as :class:`FineTuneRunner` does. Its student has
    then no teacher, which may not be trained yet.

    Args:
        path (str): The file.
        cfg_options (dict, optional): Changes.

    Returns:
        Config: It runs as it stands.

    Raises:
        FileNotFoundError: If there is no such file, or a config for one's own images finds none.
        ValueError: If these do not fit.
    """
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(cfg_options or {})
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        runner = cfg.get('runner_type')
        if isinstance(runner, str):
            runner = RUNNERS.get(runner)
        if isinstance(runner, type) and issubclass(runner, FineTuneRunner):
            if 'model' in cfg:
                cfg.teacher = cfg.teacher_checkpoint = None
            complete(cfg)
            cfg.runner_type = 'mmpretrain.DeiTRunner'
    return cfg
