"""A config for one's own images: what follows from the data."""

import difflib
import math
import os
import os.path as osp

from mmengine.config import Config, ConfigDict
from mmengine.utils import to_2tuple
from mmpretrain.models import LeViT
from mmpretrain.registry import DATASETS, MODELS

from ..datasets.image_folder import ImageFolder
from ..datasets.simple_crop import CROP_NAMES
from ..messages import some
from ..models import DeiT, DeiTIII
from ..models.arguments import arch_of, cuts_off
from ..models.deit3 import default_patch_size
from ..models.recorded import set_num_classes
from .teacher_configs import LABELS, named_classifier, named_student, recorded_classifier, size_of_timm
from .utils import names_weights

VAL_NAMES = ('val', 'valid', 'validation', 'test')
RATE, RATE_FROM_RANDOM = 5e-4 * 64 / 512, 5e-4  # at a batch of 64
LARGEST_BATCH, MOST_WORKERS = 64, 4
EPOCHS, STEPS = 30, 500  # at least, both
WARMUP = 5  # epochs at most, and a sixth of all, as of EPOCHS; of few epochs none
RECIPE_TEACHER = 'regnety_160-a5fe301d'  # of ImageNet, which the variants' configs name
PUBLISHED = 'https://dl.fbaipublicfiles.com/deit/'  # the weights of DeiTs, which they start from
_OF_A_DEIT = 'type', 'backbone', 'neck', 'head', 'teacher'  # of a model; a student of timm has the rest
SETTINGS = (
    *('data_root', 'val_fraction', 'train_list', 'val_list', 'classes', 'image_size'),
    *('student', 'teacher', 'teacher_checkpoint', 'pretrained', 'load_from'),
)


def complete(cfg: Config) -> list[str]:
    """Fill in, in place, what a config for one's own images leaves to the data.

    The settings are those of ``configs/finetune/_base_/folder.py``.

    Args:
        cfg (Config): The config.

    Returns:
        list[str]: What follows from the data, for the log.

    Raises:
        FileNotFoundError: If there are no such images.
        ValueError: If they do not fit each other, or are too few.
    """
    for name in cfg:
        if name not in SETTINGS and (meant := difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.8)):
            raise ValueError(f'{name} is no setting: is {meant[0]} meant?')
    train, val = _data(cfg)
    classes = list(train.metainfo['classes'])
    _check_data(train, classes, cfg.data_root)
    _choose_student(cfg)
    _complete_classes(cfg, classes)
    _complete_model(cfg, classes)
    _complete_sizes(cfg)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        if loader.num_workers is None:
            loader.num_workers = min(os.cpu_count() or 1, MOST_WORKERS)
    batch, rate = _complete_schedule(cfg, len(train))
    counts = [0] * len(classes)
    for i in range(len(train)):
        counts[train.get_data_info(i)['gt_label']] += 1
    of_each = some([f'{name} {count}' for name, count in zip(classes, counts)])
    held_out = ' (held out)' if val.split == 'val' else ''
    return [
        f'Own images in {cfg.data_root}: {len(train)} to train ({of_each}), {len(val)} to validate{held_out}',
        f'From them follow {len(classes)} classes, top-{max(cfg.val_evaluator.topk)}, a batch of {batch} and '
        f'a rate of {rate:.3g} for {cfg.train_cfg.max_epochs} epochs; images of {cfg.image_size} x '
        f'{cfg.image_size}',
    ]


def _data(cfg: Config) -> tuple[ImageFolder, ImageFolder]:
    """The data sets of training and validation, without pipelines."""
    root = cfg.data_root
    if '://' not in root and not osp.isdir(root):
        raise FileNotFoundError(f'data_root={root!r} ({osp.abspath(root)}) is not a folder')
    common = dict(type='ImageFolder', data_root=root, pipeline=[])
    if cfg.get('classes'):
        common['metainfo'] = dict(classes=list(cfg.classes))
    held_out = dict(val_fraction=cfg.val_fraction)
    if cfg.get('train_list'):
        train = dict(common, ann_file=cfg.train_list, split='train', **held_out)
        val = dict(train, split='val')
        if cfg.get('val_list'):
            train.pop('split')
            val = dict(common, ann_file=cfg.val_list)
    elif osp.isdir(osp.join(root, 'train')):
        train = dict(common, data_prefix='train')
        found = next((name for name in VAL_NAMES if osp.isdir(osp.join(root, name))), None)
        if found is None:
            train.update(split='train', **held_out)
            val = dict(train, split='val')
        else:
            val = dict(common, data_prefix=found)
    else:
        train = dict(common, split='train', **held_out)
        val = dict(common, split='val', **held_out)
    built = DATASETS.build(train)
    val['metainfo'] = dict(classes=list(built.metainfo['classes']))
    cfg.train_dataloader.dataset.update(train, pipeline=cfg.train_dataloader.dataset.pipeline)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.update(val, pipeline=loader.dataset.pipeline)
    return built, DATASETS.build(val)


def _check_data(train: ImageFolder, classes: list[str], root: str):
    if len(classes) < 2:
        raise ValueError(
            f'{root} has one class, {classes[0]!r}, so nothing could be learnt: there must be a folder of '
            'images for each class'
        )
    seen = {train.get_data_info(i)['gt_label'] for i in range(len(train))}
    if missing := [name for i, name in enumerate(classes) if i not in seen]:
        raise ValueError(f'{root} has no images to train of {some(missing)}: add some, or remove the class')


def _choose_student(cfg: Config):
    """A student of timm in place of the config's DeiT, if one is named."""
    if cfg.get('student') is None:
        return
    if 'model' not in cfg:
        raise ValueError(
            f'student={cfg.student!r}: this config trains a teacher. Take that of a distilled variant'
        )
    if str(cfg.get('load_from')).startswith(PUBLISHED):
        cfg.load_from = None
    pretrained = cfg.get('pretrained', True) and not cfg.get('load_from')
    given, model = cfg.model, named_student(cfg.student, pretrained)
    cfg.data_preprocessor.update(model.pop('data_preprocessor'))
    head = given.get('head', {})
    if head.get('loss', {}).get('type') == 'DistillationLoss':
        model['loss'].update(head.loss)
    if 'prediction' in head:
        model['prediction'] = head.prediction
    cfg.model = model
    of_student = {name: value for name, value in given.items() if name not in _OF_A_DEIT}
    cfg.merge_from_dict(dict(model=dict(of_student, train_cfg=given.get('train_cfg'))))


def _complete_classes(cfg: Config, classes: list[str]):
    cfg.train_dataloader.dataset.metainfo = dict(classes=classes)
    topk = (1, 5) if len(classes) > 5 else (1,)
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.topk = topk
    cfg.data_preprocessor.num_classes = len(classes)


def _complete_model(cfg: Config, classes: list[str]):
    teacher = _teacher(cfg, classes)
    if 'model' not in cfg:  # the teacher itself is trained
        if teacher is None:
            raise ValueError('There is nothing to train: set `teacher` to a classifier, such as resnet50')
        published = teacher.pop('published', None)
        cfg.load_from = cfg.get('load_from') or published
        cfg.data_preprocessor.update(teacher.pop('data_preprocessor', {}))
        cfg.model = teacher
        return
    model = cfg.model
    set_num_classes(model, len(classes))
    kind = _backbone_class(model)
    if issubclass(kind, DeiT):
        model.head.in_channels = arch_of(kind.arch_zoo, model.backbone.get('arch', 'base'))['embed_dims']
    taught = model.type in ('DistilledClassifier', 'DistilledTimmClassifier')
    inherited = model.pop('teacher', None)
    if inherited and RECIPE_TEACHER not in str(inherited.get('checkpoint')):
        raise ValueError(
            'model.teacher is not read here: set `teacher` to a name or a config file, and '
            '`teacher_checkpoint` to its weights'
        )
    if teacher is None:
        owner = model.head if 'head' in model else model  # of timm
        loss = owner.get('loss', dict(type='DistillationLoss') if taught else {})
        if loss.get('type') == 'DistillationLoss':
            owner.loss = loss.get('base_loss', LABELS)  # of the mean of both heads
        return
    if not taught:
        raise ValueError(f'A {model.type} has no teacher: take the config of a distilled variant')
    if not teacher.get('checkpoint'):
        raise ValueError(
            f'teacher={cfg.teacher!r} has no weights for these {len(classes)} classes: train it first '
            '(configs/finetune/teacher_folder.py), and set teacher_checkpoint to its work folder'
        )
    model.teacher = teacher


def _teacher(cfg: Config, classes: list[str]) -> ConfigDict | None:
    """The config of the teacher, with ``checkpoint`` where there is one to load."""
    path, name = cfg.get('teacher_checkpoint'), cfg.get('teacher')
    if path is None and name is None:
        return None
    if path is None:
        pretrained = 'model' not in cfg and cfg.get('pretrained', True) and not cfg.get('load_from')
        return ConfigDict(named_classifier(name, len(classes), cfg.image_size, pretrained))
    if name is None:
        found, known = recorded_classifier(path)
        if known and known != classes:
            raise ValueError(
                f'The teacher in {path} knows the classes {some(known)}, the data have {some(classes)}: '
                'train it on these data, with the same names in the same order'
            )
    else:
        found = named_classifier(name, len(classes), cfg.image_size, pretrained=False)
    return ConfigDict(found, checkpoint=path)


def _backbone_class(model: ConfigDict) -> type:
    """``object`` where the model has none that is registered."""
    return model.get('backbone') and MODELS.get(model.backbone.type) or object


def _complete_sizes(cfg: Config):
    size = cfg.image_size
    if type(size) is not int or size < 1:
        raise ValueError(f'image_size={size!r} must be a number of pixels')
    kind = _backbone_class(cfg.model)
    if issubclass(kind, DeiT):
        _check_patches(cfg.model.backbone, size)
    if issubclass(kind, (DeiT, LeViT)):
        cfg.model.backbone.img_size = size
    # 256 for 224, 438 for 384, as the reference; no border for DeiT III.
    edge = size if issubclass(kind, DeiTIII) else int(size / 0.875)
    if cfg.model.type == 'DistilledTimmClassifier':
        cfg.model.update(size_of_timm(cfg.model.model_name, size))
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type in CROP_NAMES:
            step.scale = size
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == 'ResizeEdge':
                step.scale = edge
            elif step.type == 'CenterCrop':
                step.crop_size = size


def _check_patches(backbone: ConfigDict, size: int):
    patches = backbone.get('patch_size') or default_patch_size(backbone.get('arch', 'base'))
    patch = math.lcm(*to_2tuple(patches))
    if size % patch and not cuts_off(backbone.get('patch_cfg', {})):
        raise ValueError(
            f'image_size={size} is not a multiple of the patches of {patch}: set '
            f'{max(size // patch, 1) * patch} or {(size // patch + 1) * patch}'
        )


def _complete_schedule(cfg: Config, images: int) -> tuple[int, float]:
    """Batch over all processes, and learning rate."""
    processes = 1
    if cfg.get('launcher', 'none') != 'none':
        processes = int(os.environ.get('WORLD_SIZE') or os.environ.get('SLURM_NTASKS') or 1)
    loader, optimizer = cfg.train_dataloader, cfg.optim_wrapper.optimizer
    if loader.batch_size is None:
        tenth = 2 ** int(math.log2(max(images / 10, 8)))
        loader.batch_size = max(1, min(tenth, LARGEST_BATCH, images) // processes)
    batch = loader.batch_size * processes
    if optimizer.lr is None:  # DeiT's rule; below 64 images by the square root
        share = batch / 64
        whole = RATE if cfg.get('load_from') or names_weights(cfg.model) else RATE_FROM_RANDOM
        optimizer.lr = whole * (share if share > 1 else math.sqrt(share))
    if cfg.train_cfg.max_epochs is None:
        cfg.train_cfg.max_epochs = max(EPOCHS, math.ceil(STEPS * batch / images))
    for schedule in cfg.param_scheduler:
        if schedule.get('warmup_epochs', 0) is None:
            epochs = cfg.train_cfg.max_epochs
            schedule.warmup_epochs = min(WARMUP, epochs // 6) if epochs >= 12 else 0
    hook = cfg.default_hooks.get('global_batch')
    if hook is not None and hook.batch_size is None:
        hook.batch_size = batch
    return batch, optimizer.lr
