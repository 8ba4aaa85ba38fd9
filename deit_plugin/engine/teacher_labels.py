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

from ..checkpoint import content_hash, fetch, local_file
from ..labels import LabelStore, dataset_listing_hash
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
        head = _model(runner).head
        if head.loss_module.mode == 'none':
            return
        seed = next((h for h in runner.hooks if isinstance(h, SeedHook)), None)
        if seed is None:
            raise ValueError(
                'teacher_labels are of the images of this very run, so all '
                'that is drawn must follow from the seed: set '
                "`default_hooks.seed=dict(type='SeedHook')`")
        loss = head.loss_module
        if loss.mode == 'soft' and not labels.topk:
            raise ValueError('Soft distillation needs probabilities: set '
                             '`model.teacher_labels.topk=10` or so')
        labels.tau = loss.tau
        rank, processes = get_dist_info()
        weights = _weights(labels)
        arguments = dict(
            fingerprint=_fingerprint(runner, seed.seed, weights),
            iterations=runner.max_iters,
            batch_size=runner.train_dataloader.batch_size,
            num_classes=labels.teacher.num_classes or head.num_classes,
            rank=rank,
            world_size=processes,
            topk=labels.topk)
        labels.store = _complete(labels, arguments) or LabelStore(
            labels.path, labels.mode, **arguments)
        recorded = labels.store.recorded()
        runner.logger.info(
            f'Labels of the teacher: {recorded} of {runner.max_iters} '
            'iterations of this process are recorded in '
            f'{osp.abspath(labels.path)} ({labels.mode})')

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Say which iteration it is."""
        if (labels := _labels(runner)) is not None:
            labels.iteration = runner.iter

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        """What is asked from here on is not of the training."""
        if (labels := _labels(runner)) is not None:
            labels.iteration = None

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
        if not hasattr(self, '_max_epochs') or _labels(runner) is None:
            raise ValueError('There is nothing to record: the config has no '
                             '`model.teacher_labels`')
        runner._hooks = [
            hook for hook in runner._hooks
            if not isinstance(hook, (CheckpointHook, FiniteLossHook))
        ]

    def run_epoch(self) -> None:
        """An epoch, unless all of it is recorded."""
        labels, length = _labels(self.runner), len(self.dataloader)
        store, start = labels.store, self._epoch * length
        if labels.mode == 'replay':
            raise ValueError("mode='replay' records nothing: choose 'auto', "
                             "or 'record' to record all anew")
        epoch = range(start, start + length)
        if labels.mode == 'auto' and all(
                store.read(i) is not None for i in epoch):
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


def _fingerprint(runner, seed: int, weights: str) -> dict:
    cfg, model = runner.cfg, _model(runner)
    loader = copy.deepcopy(cfg.train_dataloader)
    teacher = copy.deepcopy(model.teacher.cfg)
    teacher.pop('checkpoint', None)
    if loader.get('sampler'):
        loader.sampler.pop('seed', None)  # SeedHook sets it
    wrapper = runner.optim_wrapper
    preprocessor = cfg.model.get('data_preprocessor') or \
        cfg.get('data_preprocessor')
    switches = [
        hook for hook in cfg.get('custom_hooks') or []
        if 'SwitchRecipe' in str(hook.get('type'))
    ]
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
            teacher_weights=weights,
            tau=model.teacher_labels.tau
            if model.teacher_labels.topk else None,
            precision=f'{type(wrapper).__name__} '
            f'{getattr(wrapper, "cast_dtype", None)}',
            device=next(model.parameters()).device.type))


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
    """Bytes of some of the files: resized copies have the same names."""
    if not hasattr(dataset, 'get_data_info'):
        return []
    some = range(0, len(dataset), max(1, len(dataset) // 100))
    paths = [dataset.get_data_info(i).get('img_path') for i in some]
    return [osp.getsize(p) for p in paths if p and osp.isfile(p)]


def _weights(labels) -> str:
    """What tells one teacher's weights from another's."""
    cfg = labels.teacher.cfg
    checkpoint = cfg.get('checkpoint')
    if checkpoint is None:
        if cfg.get('pretrained') or cfg.get('init_cfg'):
            return 'as the config of the teacher says'
        raise ValueError('The labels of a teacher with random weights are '
                         'none: set `model.teacher.checkpoint`')
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
                logger='current')
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
