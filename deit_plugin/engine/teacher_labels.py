"""The record of a teacher's answers in a training."""
import copy
import json
import os.path as osp

import torch
from mmengine.config import Config
from mmengine.dist import get_dist_info
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import HOOKS, LOOPS

from ..checkpoint import local_file
from ..labels import LabelStore, dataset_listing_hash, file_sha256
from .hooks import FiniteLossHook
from .seeding import SeedHook


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
            ValueError: If it is of something else, or draws do not repeat.
            OSError: If the disk lacks the room for it.
        """
        labels = _labels(runner)
        if labels is None:
            return
        seed = next((h for h in runner.hooks if isinstance(h, SeedHook)), None)
        if seed is None:
            raise ValueError(
                'teacher_labels are of the images of this very run, so all '
                'that is drawn must follow from the seed: set '
                "`default_hooks.seed=dict(type='SeedHook')`")
        head = _model(runner).head
        loss = head.loss_module
        if loss.mode == 'soft' and not labels.topk:
            raise ValueError('Soft distillation needs probabilities: set '
                             '`model.teacher_labels.topk=10` or so')
        labels.tau = loss.tau
        rank, processes = get_dist_info()
        labels.store = LabelStore(
            labels.path,
            labels.mode,
            _fingerprint(runner, seed.seed),
            iterations=runner.max_iters,
            batch_size=runner.train_dataloader.batch_size,
            num_classes=labels.teacher.num_classes or head.num_classes,
            rank=rank,
            world_size=processes,
            topk=labels.topk)
        recorded = labels.store.recorded()
        runner.logger.info(
            f'Labels of the teacher: {recorded} of {runner.max_iters} '
            f'iterations are recorded in {labels.path} ({labels.mode})' +
            (', no teacher is needed' if recorded == runner.max_iters and
             labels.mode != 'record' else ''))

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Say which iteration it is."""
        if (labels := _labels(runner)) is not None:
            labels.iteration = runner.iter

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """What the checkpoint stands on is on the disk before it is."""
        if (labels := _labels(runner)) is not None and labels.store:
            labels.store.flush()

    def after_train(self, runner) -> None:
        """Close the record."""
        if (labels := _labels(runner)) is not None and labels.store:
            labels.store.close()
            labels.store = None


@LOOPS.register_module()
class TeacherLabelLoop(EpochBasedTrainLoop):
    """Runs the teacher alone over all that a training will show it.

    Epochs that are recorded already are left out. The student is neither
    trained nor saved.

    Args:
        runner (Runner): Of a config with ``model.teacher_labels``.
        **kwargs: As for ``EpochBasedTrainLoop``.
    """

    def __init__(self, runner, **kwargs):
        super().__init__(runner, **kwargs)
        if _labels(runner) is None:
            raise ValueError('There is nothing to record: the config has no '
                             '`model.teacher_labels`')
        runner._hooks = [
            hook for hook in runner._hooks
            if not isinstance(hook, (CheckpointHook, FiniteLossHook))
        ]

    def run_epoch(self) -> None:
        """An epoch, unless all of it is recorded."""
        store, length = _labels(self.runner).store, len(self.dataloader)
        start = self._epoch * length
        if all(store.read(i) is not None
               for i in range(start, start + length)):
            self._epoch += 1
            self._iter += length
            return
        super().run_epoch()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Ask the teacher about a batch."""
        self.runner.call_hook(
            'before_train_iter', batch_idx=idx, data_batch=data_batch)
        model = _model(self.runner)
        with self.runner.optim_wrapper.optim_context(model):
            data = model.data_preprocessor(data_batch, training=True)
            model.teacher_labels(data['inputs'])
        self.runner.call_hook(
            'after_train_iter', batch_idx=idx, data_batch=data_batch,
            outputs={})
        self._iter += 1


def _model(runner):
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def _labels(runner):
    return getattr(_model(runner), 'teacher_labels', None)


def _fingerprint(runner, seed: int) -> dict:
    cfg, model = runner.cfg, _model(runner)
    loader = cfg.train_dataloader
    teacher = copy.deepcopy(model.teacher.cfg)
    weights = _weights(teacher.pop('checkpoint', None), model.teacher_labels)
    wrapper = runner.optim_wrapper
    preprocessor = cfg.model.get('data_preprocessor') or \
        cfg.get('data_preprocessor')
    return _plain(
        dict(
            dataset=dataset_listing_hash(runner.train_dataloader.dataset),
            pipeline=loader.dataset.get('pipeline'),
            sampler=loader.get('sampler'),
            drop_last=loader.get('drop_last', False),
            data_preprocessor=preprocessor,
            mixing=(cfg.model.get('train_cfg') or {}).get('augments'),
            seed=seed,
            teacher=teacher,
            teacher_weights=weights,
            tau=model.teacher_labels.tau
            if model.teacher_labels.topk else None,
            precision=f'{type(wrapper).__name__} '
            f'{getattr(wrapper, "cast_dtype", None)}',
            device=next(model.parameters()).device.type))


def _weights(checkpoint, labels) -> str:
    """What tells one file of weights from another."""
    if checkpoint is None:
        return 'as the config of the teacher says'
    path = local_file(checkpoint)
    if osp.isfile(path):
        return file_sha256(path)
    try:  # not needed to replay
        with open(osp.join(labels.path, 'header.json')) as file:
            recorded = json.load(file)['fingerprint']['teacher_weights']
        print_log(
            f'The weights of the teacher, {checkpoint}, are not at hand: that '
            'the labels are theirs is not checked',
            logger='current')
        return recorded
    except (OSError, KeyError, ValueError):
        labels.teacher.build()  # which downloads them
        return file_sha256(path)


def _plain(value):
    if isinstance(value, (dict, Config)):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
