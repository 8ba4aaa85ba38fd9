"""What is trained on what: checked and said before the first iteration."""

from collections.abc import Iterator
from numbers import Integral

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import LinearParamScheduler
from mmengine.runner import BaseLoop
from mmpretrain.models import TimmClassifier
from mmpretrain.registry import HOOKS

from ...datasets.seeded import collates_labels, fills_batches, named_virtual_processes, no_iteration
from ...draws import draws_put_back
from ...messages import some
from ...models import DeiT, DeiTDataPreprocessor, TaughtClassifier
from ...models.image_size import image_size_of_config
from ...models.two_heads import two_heads
from ..loops import TeacherLabelLoop
from ..schedulers import DeiTLR
from ..utils import names_weights, unwrap
from .seed import SeedHook


@HOOKS.register_module()
class SetupHook(Hook):
    """Refuses a training whose parts do not fit each other, or that would learn nothing; else says what is
    trained.

    Compared are the classes of data, model, preprocessor, teacher and metric; the channels and the size of
    an image with what the backbone is made for; the width of the backbone with that of the head; and the
    accumulation and the warm-up with the length of the training.
    """

    priority = 'HIGH'  # after GlobalBatchHook has set the accumulation

    def before_run(self, runner) -> None:
        """Check the parts.

        Raises:
            ValueError: If something does not fit; the options to set are named.
        """
        loop = runner._train_loop
        if not isinstance(loop, BaseLoop) or isinstance(loop, TeacherLabelLoop):
            return  # nothing is trained
        model = unwrap(runner.model)
        checks = (_of_classes, _of_image, _of_batch, _of_length)
        if problems := [problem for check in checks for problem in check(runner, model)]:
            raise ValueError('Training does not start:\n- ' + '\n- '.join(problems))
        if isinstance(model, TaughtClassifier):
            model.check_teacher()

    def before_train(self, runner) -> None:
        """Say what is trained on what."""
        for line in _summary(runner, unwrap(runner.model)):
            runner.logger.info(line)


def num_classes_of(model) -> int | None:
    """Of a classifier of mmpretrain; None for other models."""
    if isinstance(model, TimmClassifier):
        return getattr(model.model, 'num_classes', None)
    return getattr(getattr(model, 'head', None), 'num_classes', None)


def _datasets(runner) -> Iterator[tuple[str, object]]:
    yield 'train_dataloader', runner.train_dataloader.dataset
    if runner.val_loop is not None:
        yield 'val_dataloader', runner.val_dataloader.dataset


def _of_classes(runner, model) -> Iterator[str]:
    number = num_classes_of(model)
    if number is None:
        return
    head = 'model.num_classes' if isinstance(model, TimmClassifier) else 'model.head.num_classes'
    for loader, dataset in _datasets(runner):
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes is not None and len(classes) != number:
            yield (
                f'the data have {len(classes)} classes ({loader}: {some(classes)}), the model {number}: set '
                f'`{head}={len(classes)}`, and `data_preprocessor.num_classes` likewise'
            )
        elif (largest := _largest_label(dataset)) >= number:
            yield f'{loader} has the label {largest}, the model {number} classes: set `{head}={largest + 1}`'
    preprocessor = model.data_preprocessor
    one_hot = getattr(preprocessor, 'batch_augments', None) is not None
    if one_hot and preprocessor.num_classes != number:
        yield (
            f'the data_preprocessor has {preprocessor.num_classes} classes, the model {number}: set '
            f'`data_preprocessor.num_classes={number}`'
        )
    for metric in runner.val_loop.evaluator.metrics if runner.val_loop is not None else ():
        topk = max(getattr(metric, 'topk', None) or (1,))
        if topk > number:
            yield (
                f'top-{topk} is asked for, of {number} classes: set `val_evaluator.topk="(1,)"` and '
                '`test_evaluator.topk="(1,)"`'
            )


def _largest_label(dataset) -> int:
    """Of about a thousand images; -1 where there are no single labels."""
    if not hasattr(dataset, 'get_data_info') or not len(dataset):
        return -1
    some_images = range(0, len(dataset), max(1, len(dataset) // 1000))
    labels = [dataset.get_data_info(i).get('gt_label') for i in some_images]
    return max((int(label) for label in labels if isinstance(label, Integral)), default=-1)


def _of_image(runner, model) -> Iterator[str]:
    backbone, head = getattr(model, 'backbone', None), getattr(model, 'head', None)
    width, expected = getattr(backbone, 'embed_dims', None), getattr(head, 'in_channels', None)
    if isinstance(backbone, DeiT) and isinstance(expected, int) and width != expected:
        yield (
            f'the backbone gives {width} channels, the head takes {expected}: set '
            f'`model.head.in_channels={width}`'
        )
    known = None if isinstance(backbone, DeiT) else image_size_of_config(runner.cfg.get('model') or {})
    if not isinstance(backbone, DeiT) and known is None:
        return
    image = _first_image(runner.train_dataloader.dataset)
    if image is None:
        return
    given = tuple(image.shape[1:])
    if known is not None:
        option, size = known
        if size != given:
            setting = f'set `model.{option}` and' if option else 'set'
            yield (
                f'an image is {given} (height, width) after the pipeline, and the model takes {size}: '
                f'{setting} the crop of `train_dataloader.dataset.pipeline` to the same size'
            )
        return
    channels, size = backbone.patch_embed.projection.in_channels, tuple(backbone.img_size)
    if len(image) != channels:
        yield (
            f'an image has {len(image)} channels, the backbone takes {channels}: set '
            f'`model.backbone.in_channels={len(image)}`, or load images with {channels}'
        )
    if given != size:
        yield (
            f'an image is {given} (height, width) after the pipeline, the position '
            f'embeddings are of {size}: set `model.backbone.img_size` and the crop of '
            '`train_dataloader.dataset.pipeline` to the same size'
        )


def _first_image(dataset) -> torch.Tensor | None:
    """The first image (C, H, W) of a data set, if it gives such."""
    if not len(dataset):
        return None
    with draws_put_back():
        sample = dataset[0]
    image = sample.get('inputs') if isinstance(sample, dict) else None
    return image if isinstance(image, torch.Tensor) and image.ndim == 3 else None


def _of_batch(runner, model) -> Iterator[str]:
    loader, preprocessor = runner.train_dataloader, model.data_preprocessor
    if collates_labels(loader) and not isinstance(preprocessor, DeiTDataPreprocessor):
        yield (
            f'labels_collate is for DeiTDataPreprocessor, and the data_preprocessor is a '
            f"{type(preprocessor).__name__}: set `train_dataloader.collate_fn.type='default_collate'`"
        )
    virtual, count = named_virtual_processes(loader), runner.optim_wrapper._accumulative_counts
    if virtual is not None and count != virtual.accumulated(loader.batch_size):
        yield (
            f'{virtual}, whose batches nothing accumulates: set `default_hooks.global_batch=dict('
            f"type='GlobalBatchHook', batch_size={virtual.number * virtual.batch_size})`"
        )
    dataset = loader.dataset
    while hasattr(dataset, 'dataset'):  # as of RepeatDataset
        dataset = dataset.dataset
    steps = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    left = [step.on_device for step in steps if getattr(step, 'on_device', None)]
    seeded = any(isinstance(hook, SeedHook) for hook in runner.hooks)
    if left and not (seeded and fills_batches(loader)):
        yield (
            f'on_device={left[0]!r} needs LoadRandomResizedCrop and PackInputs at the end of the pipeline of '
            'an ImageNet1k or ImageFolder with labels, that is not wrapped, a SeedHook, and '
            "`train_dataloader.collate_fn.type='labels_collate'`: set these, or on_device=None"
        )


def _of_length(runner, model) -> Iterator[str]:
    length, count = len(runner.train_dataloader), runner.optim_wrapper._accumulative_counts
    if reason := no_iteration(runner.train_dataloader):
        yield reason
    elif count > length:
        images = length * runner.train_dataloader.batch_size * get_world_size()
        yield (
            f'gradients of {count} iterations are accumulated and an epoch has {length}, so next to nothing '
            f'would be learnt: set `default_hooks.global_batch.batch_size` to {images} or less, and '
            '`optim_wrapper.optimizer.lr` in proportion'
        )
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    for i, scheduler in enumerate(schedulers):
        whole = runner.max_epochs if scheduler.by_epoch else runner.max_iters
        if (warmup := _warmup(scheduler)) >= whole:
            option = 'warmup_epochs' if isinstance(scheduler, DeiTLR) else 'end'
            unit = 'epochs' if scheduler.by_epoch else 'iterations'
            yield (
                f'the warm-up of {warmup} {unit} is as long as the training of {whole}, so next to nothing '
                f'would be learnt: set `param_scheduler.{i}.{option}` lower, or `train_cfg.max_epochs` higher'
            )


def _warmup(scheduler) -> int:
    if isinstance(scheduler, DeiTLR):
        return scheduler.warmup_epochs
    first = isinstance(scheduler, LinearParamScheduler) and scheduler.begin == 0
    return scheduler.end if first else 0


def _summary(runner, model) -> Iterator[str]:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.parameters())
    share = '' if trained == whole else f', of which {trained / 1e6:.2f}M are trained'
    backbone = getattr(model, 'backbone', getattr(model, 'model', model))
    name = f'{type(model).__name__} with {type(backbone).__name__}'
    yield f'Model: {name}, {whole / 1e6:.2f}M parameters{share}'
    number, datasets = num_classes_of(model), dict(_datasets(runner))
    images = f'{len(datasets["train_dataloader"])} images to train'
    if 'val_dataloader' in datasets:
        images += f', {len(datasets["val_dataloader"])} to validate'
    classes = getattr(datasets['train_dataloader'], 'metainfo', {}).get('classes') or ()
    named = f' ({some(classes)})' if classes else ''
    yield f'Data: {images}' + (f', {number} classes{named}' if number else '')
    if isinstance(model, TaughtClassifier) and model.teacher is not None:
        cfg = model.teacher.cfg
        name = cfg.get('model_name', cfg['type'])
        weights = cfg.get('checkpoint') or 'its config'
        yield f'Teacher: {name}, weights from {weights}; {model.distillation.mode} distillation'
    elif isinstance(model, TaughtClassifier):
        yield f'No teacher: {_learners(model)} the labels'
    loop, wrapper = runner.train_loop, runner.optim_wrapper
    rates = [group['lr'] for group in wrapper.param_groups]
    yield (
        f'Training: {loop.max_epochs} epochs of {len(runner.train_dataloader)} iterations, '
        f'{type(wrapper.optimizer).__name__}, seed {runner.seed}, on {next(model.parameters()).device}, '
        f'now at a rate of {max(rates):.3g}'
    )
    if not runner._load_from and not runner.iter and not names_weights(runner.cfg.get('model')):
        yield 'The weights to start from are random'
    if runner.iter:
        yield f'It goes on after {runner.epoch} epochs, {runner.iter} iterations'


def _learners(model: TaughtClassifier) -> str:
    if two_heads(model) is None:
        return 'the head learns'
    return 'both heads learn' if model.distillation is None else 'the class head alone learns'
