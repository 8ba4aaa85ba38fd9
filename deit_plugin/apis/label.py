"""Record a teacher's answers without training the student, and check a record."""

import os
import re

from mmengine.runner import Runner

from ..engine.own_images import complete
from ..engine.utils import unwrap
from ..messages import some
from ..teacher_cache.record import check_record, epochs_named
from .configs import is_for_own_images, read_config

COMPARED_BATCHES = 2  # of each of three epochs


def label(
    config: str,
    cfg_options: dict | None = None,
    work_dir: str = 'work_dirs/label',
    launcher: str = 'none',
    epochs: str | None = None,
):
    """Record the teacher's answers to the batches of a training.

    Args:
        config (str): Of the training, with ``model.teacher_labels``.
        cfg_options (dict, optional): Changes of the config.
        work_dir (str): For the log. Defaults to ``'work_dirs/label'``.
        launcher (str): As for mmengine's ``Runner``. Defaults to ``'none'``.
        epochs (str, optional): The first, counted from 0, and the one after the last, such as ``'100:200'``;
            also beyond the end of the training. Defaults to None: all.

    Raises:
        ValueError: If the launcher is not running, or there are no such epochs.
    """
    cfg = _recording(config, cfg_options, work_dir, launcher)
    if epochs is not None:
        wanted = _span(epochs, cfg.train_cfg.max_epochs)
        cfg.train_cfg.update(epochs=[*wanted], max_epochs=wanted.stop)
    Runner.from_cfg(cfg).train()


def compare(
    config: str,
    folder: str,
    cfg_options: dict | None = None,
    work_dir: str = 'work_dirs/label',
    launcher: str = 'none',
) -> float:
    """Compare a sample of recorded answers with the teacher's.

    Args:
        config (str): Of the training.
        folder (str): The record.
        cfg_options (dict, optional): See :func:`label`.
        work_dir (str): Likewise.
        launcher (str): Likewise.

    Returns:
        float: Percent of the answers that the teacher gives again, in this process.

    Raises:
        ValueError: If that is less than 90 in a batch, or if the record is of another recipe.
    """
    epochs, _, fingerprint = check_record(folder)
    cfg = _recording(config, cfg_options, work_dir, launcher)
    some_epochs = sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1]})
    cfg.train_cfg.update(epochs=some_epochs, max_epochs=epochs[-1] + 1, batches=COMPARED_BATCHES)
    topk = fingerprint['recipe']['topk']
    cfg.model.teacher_labels = dict(path=folder, mode='replay', topk=topk, check_interval=1)
    runner = Runner.from_cfg(cfg)
    runner.train()
    agreements = unwrap(runner.model).teacher_labels.agreements
    return sum(agreements) / len(agreements)


def check(folder: str) -> tuple[list[str], bool]:
    """Read all of a record.

    Args:
        folder (str): The record.

    Returns:
        tuple[list[str], bool]: What there is to say, in lines; and whether all is sound.

    Raises:
        ValueError: If there is no record, or one of another format.
    """
    sound, problems, fingerprint = check_record(folder)
    lines = [f'{folder}: {epochs_named(sound)} sound']
    if fingerprint:
        recipe = fingerprint['recipe']
        kind = f'the first {recipe["topk"]} classes' if recipe['topk'] else 'a class'
        lines.append(
            f'Each has {kind} for {recipe["steps"]} steps of {recipe["processes"]} x {recipe["batch_size"]} '
            f'images, by a teacher of {recipe["num_classes"]} classes, weights '
            + some(weights.get('name') for weights in recipe.get('teacher_weights') or ())
        )
    return [*lines, *problems], not problems


def _recording(config: str, cfg_options: dict | None, work_dir: str, launcher: str):
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
    return cfg


def _span(epochs: str, last: int) -> range:
    found = re.fullmatch(r'(\d*):(\d*)', epochs)
    wanted = range(int(found[1] or 0), int(found[2] or last)) if found else range(0)
    if not wanted:
        raise ValueError(
            f'--epochs {epochs} names no epochs: give the first, counted from 0, and the one after the last, '
            'such as 100:200'
        )
    return wanted
