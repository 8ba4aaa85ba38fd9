"""The record of a teacher's answers in a training."""

import os.path as osp
from functools import partial

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import HOOKS

from ...datasets.seeded import virtual_processes_of
from ...first_process import of_the_first
from ...teacher_cache.answers import Answers
from ...teacher_cache.fingerprint import run_fingerprint
from ...teacher_cache.record import Record, shape_of
from ...teacher_cache.weights import at_hand
from ..utils import unwrap
from .seed import SeedHook
from .setup import num_classes_of


@HOOKS.register_module()
class TeacherLabelsHook(Hook):
    """Reads and writes the record that ``model.teacher_labels`` names, if it does, an epoch at a time.

    What the labels depend on must be what it was when they were recorded, or training does not start: the
    data set's files and labels, pipeline, sampler, preprocessing and mixing, the seed, the virtual processes,
    the teacher's config and weights. What changes images or answers by a rounding (decoder, versions,
    device, precision) is a warning, and a batch is compared with the teacher if its weights are at hand.

    The first process alone reads and writes. An epoch is written when it ends.
    """

    active = False

    def before_train(self, runner) -> None:
        """Look at the record.

        Raises:
            ValueError: If it is of something else, if an epoch is missing that is to be replayed, or if draws
                do not repeat: no seed is set.
            OSError: If the folder cannot be written.
        """
        labels, model = _labels(runner), unwrap(runner.model)
        self.active = labels is not None and model.distillation is not None
        if not self.active:
            return
        seed = _seed_of(runner)
        _check_training(runner, model, labels)
        labels.tau, labels.num_classes = model.distillation.tau, _num_classes(model, labels)
        virtual = virtual_processes_of(runner.train_dataloader)
        wanted = getattr(runner.train_loop, 'epochs', range(runner.epoch, runner.max_epochs))
        fingerprint = partial(run_fingerprint, runner, model, seed, virtual)
        data = runner.cfg.train_dataloader.dataset

        def look() -> tuple:
            self.record = Record(labels.path, labels.mode, wanted, fingerprint, data)
            return self.record.fingerprint['recipe'], self.record.recorded, self.record.differences

        self.recipe, labels.recorded, differences = of_the_first(look)
        self.carried = virtual.carried
        known = labels.recorded.intersection(wanted)
        runner.logger.info(
            f'Labels of the teacher: {len(known)} of {len(wanted)} epochs are recorded in '
            f'{osp.abspath(labels.path)} ({labels.mode})'
        )
        if any(weights['sha256'] is None for weights in self.recipe['teacher_weights']):
            runner.logger.info(
                'The weights of the teacher are not at hand: they are compared by the name of the file'
            )
        if differences and labels.mode != 'record' and known:
            labels.compare_next = at_hand(model.teacher.cfg)
            runner.logger.warning(_what_changed(differences, labels.compare_next))

    def before_train_epoch(self, runner) -> None:
        """Read the epoch, if it is recorded.

        Raises:
            ValueError: If its file is damaged.
            FileNotFoundError: If its file is gone, and it is to be replayed.
        """
        if not self.active:
            return
        labels, epoch = _labels(runner), runner.epoch
        self.accuracies: list = []
        stored = of_the_first(lambda: self.record.read(epoch))
        shape = shape_of(self.recipe)
        labels.answers = Answers(epoch * shape[0], self.carried, shape, stored)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Note how often the teacher was right, where the training tells."""
        if self.active and outputs and 'teacher_acc' in outputs:
            self.accuracies.append(outputs['teacher_acc'].detach())

    def after_train_epoch(self, runner) -> None:
        """Write the epoch, if it was not recorded."""
        if not self.active:
            return
        labels, epoch = _labels(runner), runner.epoch
        answers, labels.answers = labels.answers, None
        if answers.recorded or not answers.whole:
            return
        arrays, notes = answers.gathered(self.recipe['num_classes']), {}
        if self.accuracies:
            mean = sum(self.accuracies) / len(self.accuracies)
            all_reduce(mean, 'mean')
            notes['teacher_acc'] = round(float(mean), 2)
        path = of_the_first(lambda: self.record.write(epoch, arrays, notes))
        labels.recorded.add(epoch)
        runner.logger.info(f'Labels of the teacher: epoch {epoch} is in {path}')

    def after_train(self, runner) -> None:
        """Ask for nothing more."""
        if self.active:
            _labels(runner).answers = None


def _labels(runner):
    return getattr(unwrap(runner.model), 'teacher_labels', None)


def _seed_of(runner) -> int:
    hook = next((h for h in runner.hooks if isinstance(h, SeedHook)), None)
    if hook is None:
        raise ValueError(
            'teacher_labels are of the images of this very run, so all that is drawn must follow '
            "from the seed: set `default_hooks.seed=dict(type='SeedHook')`"
        )
    if (runner.cfg.get('randomness') or {}).get('seed') is None:
        raise ValueError(
            'teacher_labels are of the images that one seed draws, and without one each run draws '
            'another: set `randomness=dict(seed=0)`, or train without them: `model.teacher_labels=None`'
        )
    return hook.seed


def _check_training(runner, model, labels):
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        raise ValueError(
            f'teacher_labels are recorded an epoch at a time, and {type(runner.train_loop).__name__} has '
            'none: set `train_cfg=dict(by_epoch=True, max_epochs=...)`, or `model.teacher_labels=None`'
        )
    if model.distillation.mode == 'soft' and not labels.topk:
        raise ValueError('Soft distillation needs probabilities: set `model.teacher_labels.topk=10` or so')
    classes = _num_classes(model, labels)
    if labels.topk > classes:
        raise ValueError(
            f'teacher_labels.topk={labels.topk} is more than the {classes} classes of the teacher'
        )


def _num_classes(model, labels) -> int:
    return labels.teacher.num_classes or num_classes_of(model)


def _what_changed(differences: list[str], compared: bool) -> str:
    how = (
        'The first batch is compared with the teacher'
        if compared
        else 'The weights of the teacher are not at hand to compare a batch'
    )
    return (
        'This has changed since the labels were recorded, which may change images by a level, and answers in '
        f'a near tie. {how}. Stored values -> present ones:\n' + '\n'.join(differences)
    )
