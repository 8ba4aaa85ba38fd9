"""Record a teacher's answers without training the student."""

import os

from mmengine.runner import Runner

from ..engine.own_images import complete
from .configs import is_for_own_images, read_config


def label(
    config: str,
    cfg_options: dict | None = None,
    work_dir: str = 'work_dirs/label',
    launcher: str = 'none',
):
    """Record the teacher's answers to all batches of a training.

    Args:
        config (str): Of the training, with ``model.teacher_labels``.
        cfg_options (dict, optional): Changes of the config.
        work_dir (str): For the log. Defaults to ``'work_dirs/label'``.
        launcher (str): As for mmengine's ``Runner``. Defaults to ``'none'``.

    Raises:
        ValueError: If the launcher is not running.
    """
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise ValueError(
            '--launcher pytorch needs torchrun: `torchrun --nproc_per_node 8 -m deit_plugin label CONFIG '
            '--launcher pytorch`'
        )
    cfg = read_config(config, cfg_options)
    if is_for_own_images(cfg):
        complete(cfg)
    cfg.train_cfg.pop('by_epoch', None)
    cfg.train_cfg.type = 'mmpretrain.TeacherLabelLoop'
    cfg.setdefault('default_hooks', {})
    cfg.default_hooks['checkpoint'] = None  # nothing is trained
    cfg.update(
        work_dir=work_dir,
        launcher=launcher,
        load_from=None,  # the student's
        resume=False,
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
    )
    Runner.from_cfg(cfg).train()
