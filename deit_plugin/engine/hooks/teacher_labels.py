"""The record of a teacher's answers in a training."""

import os.path as osp

from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from ...teacher_cache.fingerprint import run_fingerprint
from ...teacher_cache.store import LabelStore
from ..utils import unwrap
from .seed import SeedHook


@HOOKS.register_module()
class TeacherLabelsHook(Hook):
    """Opens the record that ``model.teacher_labels`` names, if it does.

    What the labels depend on must be what it was when they were recorded, or
    training does not start: the data set's files and labels, pipeline,
    sampler, preprocessing and mixing, the seed, batch and processes, the
    teacher's config and weights, the precision and kind of device.
    """

    def before_train(self, runner) -> None:
        """Open the record.

        Raises:
            ValueError: If it is of something else, or draws do not repeat: no seed is set.
            OSError: If the disk lacks the room for it.
        """
        labels, model = _labels(runner), unwrap(runner.model)
        if labels is None or model.distillation is None:
            return
        seed = next((h for h in runner.hooks if isinstance(h, SeedHook)), None)
        if seed is None:
            raise ValueError(
                'teacher_labels are of the images of this very run, so all that is drawn must follow '
                "from the seed: set `default_hooks.seed=dict(type='SeedHook')`"
            )
        if (runner.cfg.get('randomness') or {}).get('seed') is None:
            raise ValueError(
                'teacher_labels are of the images that one seed draws, and without one each run draws '
                'another: set `randomness=dict(seed=0)`, or train without them: `model.teacher_labels=None`'
            )
        if model.distillation.mode == 'soft' and not labels.topk:
            raise ValueError(
                'Soft distillation needs probabilities: set `model.teacher_labels.topk=10` or so'
            )
        labels.tau = model.distillation.tau
        rank, processes = get_dist_info()
        arguments = dict(
            fingerprint=run_fingerprint(runner, model, seed.seed),
            iterations=runner.max_iters,
            batch_size=runner.train_dataloader.batch_size,
            num_classes=labels.teacher.num_classes or model.head.num_classes,
            rank=rank,
            world_size=processes,
            topk=labels.topk,
        )
        labels.store = _complete(labels, arguments) or LabelStore(labels.path, labels.mode, **arguments)
        recorded = labels.store.recorded()
        runner.logger.info(
            f'Labels of the teacher: {recorded} of {runner.max_iters} '
            'iterations of this process are recorded in '
            f'{osp.abspath(labels.path)} ({labels.mode})'
        )

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Set the iteration."""
        if (labels := _labels(runner)) is not None:
            labels.iteration = runner.iter

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Reset the iteration: only those of the training are recorded."""
        if (labels := _labels(runner)) is not None:
            labels.iteration = None

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Flush the labels before the checkpoint that relies on them is written."""
        if (labels := _labels(runner)) is not None and labels.store:
            labels.store.flush()

    def after_train(self, runner) -> None:
        """Close the record."""
        if (labels := _labels(runner)) is not None and labels.store:
            labels.store.close()
            labels.store = None


def _labels(runner):
    return getattr(unwrap(runner.model), 'teacher_labels', None)


def _complete(labels, arguments: dict):
    """A record in which nothing is missing, opened to read: others may read
    it too, and it may lie where nothing can be written."""
    if labels.mode != 'auto':
        return None
    try:
        store = LabelStore(labels.path, 'replay', **arguments)
    except (ValueError, FileNotFoundError):
        return None  # it is not there, or has to grow
    if store.recorded() == arguments['iterations']:
        return store
    store.close()
    return None
