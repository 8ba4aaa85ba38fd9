"""Each config builds and trains, without data or network, and says what it is."""

import copy
import functools
import re

import conftest
import numpy as np
import pytest
import torch
from conftest import ARCH, CONFIGS, make_runner, teacher_cfg
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS

from deit_plugin.models import DeiT
from deit_plugin.models.rand_augment import RandAugment

ALL = sorted(
    str(path.relative_to(CONFIGS).with_suffix(''))
    for pattern in ('*.py', 'transfer/*.py', 'students/*.py', 'deit3/*.py')
    for path in CONFIGS.glob(pattern)
)
DIGITS = [n for n in ALL if 'digits' in n]
TRANSFER = [n for n in ALL if n.startswith('transfer')]
STUDENTS = [n for n in ALL if n.startswith('students') and n not in DIGITS]
DEIT3 = [n for n in ALL if n.startswith('deit3/')]
IMAGENET = [n for n in ALL if n not in DIGITS + TRANSFER + STUDENTS + DEIT3 and 'simmim' not in n]
NAMES = IMAGENET + TRANSFER

# Top-1 of arXiv 2012.12877, table 7: base, base 384, distilled, distilled 384.
TABLE_7 = dict(
    cifar10=(99.1, 99.1, 99.1, 99.2),
    cifar100=(90.8, 90.8, 91.3, 91.4),
    flowers=(98.4, 98.5, 98.8, 98.9),
    cars=(92.1, 93.3, 92.9, 93.9),
    inat18=(73.2, 79.5, 73.7, 80.1),
    inat19=(77.7, 81.4, 78.4, 83.0),
)
MODELS_7 = 'deit_base', 'deit_base_384', 'deit_base_distilled', 'deit_base_distilled_384'


read = functools.cache(conftest.config)


def config(name):
    return copy.deepcopy(read(name))


@pytest.mark.parametrize('name', ALL)
def test_nothing_of_a_base_keeps_a_mark_that_its_user_does_not_know(name):
    """mmengine adds `_scope_` to each dict with a `type` from `mmpretrain::`: mmpretrain's browse_dataset and
    mmengine's collating take it for an argument."""
    cfg = read(name)
    assert cfg.visualizer == dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
    for phase in ('train', 'val', 'test'):
        loader = cfg.get(f'{phase}_dataloader') or {}
        assert loader.get('collate_fn', dict(type='')).keys() == {'type'}, phase


def side_of(cfg):
    return cfg.model.backbone.get('img_size', 224)


def test_none_is_missing():
    assert len(DIGITS) == 3 + 1
    assert len(STUDENTS) == 5 + 4 + 8 + 10 + 7
    assert len(DEIT3) == 16 + 8 + 1
    assert len(IMAGENET) == 6 + 2 + 1 + 3 + 1 + 6
    assert TRANSFER == sorted(f'transfer/{m}_{data}' for m in MODELS_7 for data in TABLE_7)


@pytest.mark.slow
def test_what_the_transfer_configs_share_is_in_few_files():
    files = {path.name for path in CONFIGS.glob('transfer/_base_/*')} - {'__pycache__'}
    assert files == {'adamw_dino.py', 'adamw_inat.py', 'data_sets.py', 'distilled.py', 'sgd.py'}
    for name in TRANSFER:  # what they take from there is no key of their own
        assert not {'data_sets', 'distilled'} & read(name).keys()


def header(name):
    """The lines above `_base_`, continued ones joined."""
    text = (CONFIGS / f'{name}.py').read_text()
    lines = text[: text.index('_base_ = ')].rstrip().splitlines()
    assert lines and all(line.startswith('#') for line in lines)
    return lines, re.sub(r' \\\n# +', ' ', '\n'.join(lines))


@pytest.mark.slow
@pytest.mark.parametrize('name', ALL)
def test_header(name):
    """It has a figure or says why not, and a command for the hardware that it names."""
    lines, text = header(name)
    assert len(lines) <= (20 if 'simmim' in name else 8)
    assert re.search(r'Published top-1( / top-5: \d\d\.\d{3} / \d\d\.\d{3}|: \d\d\.\d) \(', text) or (
        'No figure is published' in text
    )
    command = f'#   mim train mmpretrain configs/{name}.py'
    assert command in text.splitlines()  # on 1 GPU
    if name in DIGITS:
        return
    cfg = read(name)
    gpus, images = map(int, re.search(r'(\d+) GPUs x (\d+)', text).groups())
    assert images == cfg.train_dataloader.batch_size
    sampler = cfg.train_dataloader.sampler
    if sampler.type == 'RepeatedAugmentSampler':  # the run stays that one on any number of GPUs
        assert (sampler.processes, sampler.batch_size) == (gpus, images)
    assert gpus * images == cfg.default_hooks.global_batch.batch_size
    assert f'the same batch of {gpus * images}:' in text
    many = f'{command} --launcher pytorch --gpus {gpus}'
    if gpus > 8:
        many = f'{command} --launcher slurm --gpus {gpus} --gpus-per-node 8 --partition PARTITION'
    assert many in text.splitlines()


@pytest.mark.parametrize('data', TABLE_7)
def test_figures_of_table_7(data):
    (row,) = re.findall(rf'(?m)^\| `{data}` \|.*', (CONFIGS / 'transfer' / 'README.md').read_text())
    shown = [cell.strip() for cell in row.split('|')[2:6]]
    for model, figure, cell in zip(MODELS_7, TABLE_7[data], shown, strict=True):
        assert f'Published top-1: {figure} (' in header(f'transfer/{model}_{data}')[1]
        assert cell == str(figure)


# classes, optimizer, rate, decay, smallest rate, epochs, erasing, drop path of the plain model
SGD, ADAMW = (('SGD', 0.01, 1e-4, 1e-5, 1000, 0.0, 0.0), ('AdamW', 7.5e-5, 0.05, 1e-5, 360, 0.1, 0.1))
RECIPES = dict(
    cifar10=(10, *SGD),
    cifar100=(100, 'AdamW', 5e-6, 0.05, 1e-5, 1000, 0.0, 0.1),
    flowers=(102, 'AdamW', 7.5e-6, 0.05, 1e-5, 1000, 0.0, 0.1),
    cars=(196, *SGD),
    inat18=(8142, *ADAMW),
    inat19=(1010, *ADAMW),
)


@pytest.mark.parametrize('name', TRANSFER)
def test_recipe_of_transfer(name):
    cfg = read(name)
    start, data = name.split('/')[1].rsplit('_', 1)
    distilled, large = 'distilled' in start, '384' in start
    classes, optimizer, rate, decay, smallest, epochs, erasing, drop_path = RECIPES[data]
    optim = cfg.optim_wrapper.optimizer
    assert (optim.type, optim.lr, optim.weight_decay) == (optimizer, rate, decay)
    assert ('nesterov' in optim, 'betas' in optim) == (optimizer == 'SGD', optimizer == 'AdamW')
    (schedule,) = cfg.param_scheduler
    assert schedule == dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=smallest)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.default_hooks.global_batch.batch_size == 768
    assert cfg.train_dataloader.batch_size == cfg.val_dataloader.batch_size == (32 if large else 96)
    assert cfg.data_preprocessor.erasing == erasing
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == classes
    # The reference trains both heads by the labels in eval mode alone.
    assert cfg.model.backbone.drop_path_rate == (0 if distilled else drop_path)
    assert cfg.model.type == 'ImageClassifier' and cfg.model.head.loss.type == 'LabelSmoothLoss'
    assert cfg.model.backbone.get('distilled', False) == distilled == ('neck' in cfg.model)
    assert cfg.model.head.type == ('DeiTDualHead' if distilled else 'DeiTHead')
    assert side_of(cfg) == (384 if large else 224)
    assert cfg.load_from == f'work_dirs/{start}/epoch_{30 if large else 300}.pth'
    assert cfg.load_from.split('/')[1] in IMAGENET
    splits = {
        (d.type, d.data_root, d.get('split', d.get('data_prefix')))
        for d in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset)
    }
    assert (
        splits
        == {
            'cifar10': {('CIFAR10', 'data/cifar10', 'train'), ('CIFAR10', 'data/cifar10', 'test')},
            'cifar100': {('CIFAR100', 'data/cifar100', 'train'), ('CIFAR100', 'data/cifar100', 'test')},
            'flowers': {('Flowers102', 'data/flowers102', s) for s in ('trainval', 'test')},
            'cars': {('StanfordCars', 'data/stanford_cars', s) for s in ('train', 'test')},
            'inat18': {('CustomDataset', 'data/inat2018', s) for s in ('train', 'val')},
            'inat19': {('CustomDataset', 'data/inat2019', s) for s in ('train', 'val')},
        }[data]
    )


@pytest.mark.parametrize('name', IMAGENET)
def test_recipe_of_imagenet(name):
    cfg = read(name)
    side = 384 if '384' in name else 224
    assert side_of(cfg) == side
    assert cfg.data_preprocessor.erasing == 0.25
    assert cfg.model.train_cfg.augments == [
        dict(type='Mixup', alpha=0.8),
        dict(type='CutMix', alpha=1.0),
    ]
    assert cfg.model.backbone.drop_path_rate == (0 if side == 384 else 0.1)
    assert 'EMAHook' not in str(cfg.to_dict())
    assert 'teacher_labels' not in cfg.model
    assert 'clip_grad' not in cfg.optim_wrapper
    arch = cfg.model.backbone.arch
    assert f'deit_{arch}' in name
    assert cfg.train_dataloader.batch_size == (32 if side == 384 else 64 if arch == 'base' else 256)
    loss = cfg.model.head.loss
    if 'teacher' in cfg.model:
        assert loss.base_loss.label_smooth_val == 0.1
        soft = dict(mode='soft', tau=3.0, alpha=0.1)
        hard = dict(mode='hard', alpha=0.5)
        for key, value in (soft if 'soft' in name else hard).items():
            assert loss[key] == value
    else:
        assert loss == dict(type='LabelSmoothLoss', label_smooth_val=0.1)


def make_pipeline(loader):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(t) for t in loader.dataset.pipeline])


@pytest.mark.parametrize('name', [n for n in NAMES if 'cifar' in n])
def test_cifar_reaches_the_model_in_rgb(name, monkeypatch):
    cfg = config(name)
    preprocessor = MODELS.build(dict(cfg.data_preprocessor))
    red = np.zeros((32, 32, 3), dtype=np.uint8)
    red[..., 0] = 255  # as mmpretrain's dataset gives it
    augmented = []
    monkeypatch.setattr(RandAugment, 'forward', lambda self, x: augmented.append(x.clone()) or x)
    for training, loader in ((False, cfg.test_dataloader), (True, cfg.train_dataloader)):
        packed = make_pipeline(loader)(dict(img=red, gt_label=0))
        batch = preprocessor(
            dict(inputs=packed['inputs'][None], data_samples=[packed['data_samples']]), training
        )['inputs']
        assert (batch[0, 0] > 2).all() and (batch[0, 1:] < -1).all()
    (batch,) = augmented  # in training alone
    assert (batch[0, 0] == 255).all() and (batch[0, 1:] == 0).all()


@pytest.mark.parametrize('name', NAMES)
def test_pipelines_evaluator_and_hooks(name):
    cfg = config(name)
    side = side_of(cfg)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        pipeline = make_pipeline(loader)
        if loader.dataset.pipeline[0].type == 'LoadImage':
            pipeline.transforms.pop(0)
        image = torch.randint(0, 256, (300, 400, 3), dtype=torch.uint8).numpy()
        out = pipeline(dict(img=image, gt_label=3))
        assert out['inputs'].shape == (3, side, side)
        assert out['inputs'].dtype == torch.uint8
        assert out['inputs'].is_contiguous()
    resize, crop, _ = cfg.test_dataloader.dataset.pipeline[-3:]
    assert (resize.scale, crop.crop_size) == {224: (256, 224), 384: (438, 384)}[side]
    assert cfg.val_dataloader == cfg.test_dataloader
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        Evaluator(cfg.test_evaluator)
    assert cfg.data_preprocessor.type == 'DeiTDataPreprocessor'
    assert cfg.data_preprocessor.rand_augment == dict()  # the recipe's
    assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes
    hooks = cfg.default_hooks
    assert hooks.finite_loss == dict(type='FiniteLossHook')
    assert hooks.filled_model == dict(type='FilledModelHook')
    assert hooks.seed == dict(type='SeedHook')
    assert hooks.teacher_labels == dict(type='TeacherLabelsHook')
    # On each GPU other draws, but the same seed, which a resumed run has too.
    assert cfg.randomness == dict(seed=0, deterministic=False)
    assert cfg.optim_wrapper.constructor == 'GroupedOptimWrapperConstructor'
    assert cfg.model.head.in_channels == DeiT.arch_zoo[cfg.model.backbone.arch]['embed_dims']


def test_simmim_takes_the_weights_of_other_libraries():
    assert read('deit_base_simmim').default_hooks.filled_model == dict(type='FilledModelHook')


@pytest.mark.parametrize('name', DIGITS)
def test_digits_config_trains(name, tmp_path, quick):
    """As it is, on a part of the images."""
    cfg = config(name)
    assert cfg.data_preprocessor.type == 'DeiTDataPreprocessor'
    assert cfg.train_pipeline[0].type == 'LoadRandomResizedCrop'
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler[0].warmup_epochs = 1
    for loader, size in ((cfg.train_dataloader, 128), (cfg.val_dataloader, 20)):
        loader.num_workers, loader.persistent_workers = 0, False
        loader.dataset.indices = size
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    runner.model.init_weights = lambda: None  # so that training begins there
    before = [p.detach().clone() for p in runner.model.parameters()]
    runner.train()
    assert runner.iter == 4
    for old, new in zip(before, runner.model.parameters()):
        assert not torch.equal(old, new)
    assert len(runner.optim_wrapper.optimizer.param_groups) == 2


def train(cfg, folder):
    """Two iterations, with a teacher of as many classes that needs no weights."""
    optim = cfg.optim_wrapper  # in float32 on a CPU
    assert optim['type'] == 'AmpOptimWrapper' and optim['dtype'] == 'float16'
    model = cfg.model.to_dict()
    model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    classes = cfg.model.head.num_classes
    if 'teacher' in model:
        assert model['teacher']['num_classes'] == classes == 1000
        model['teacher'] = teacher_cfg(classes)
    loader = cfg.train_dataloader
    hooks = cfg.default_hooks.to_dict()
    hooks.pop('visualization')
    hooks.pop('curves'), hooks.update(checkpoint=None)  # nothing is written
    hooks['global_batch']['batch_size'] = 2  # a step for each batch
    sampler = dict(loader.sampler.to_dict(), processes=1, batch_size=2)
    runner = make_runner(
        model,
        folder,
        scores=[0.0],
        train_dataloader=dict(
            dataset=dict(type='Noise', size=4, side=side_of(cfg), num_classes=classes),
            batch_size=2,
            drop_last=loader.drop_last,
            sampler=sampler,
            collate_fn=dict(type='default_collate'),
        ),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        optim_wrapper=optim.to_dict(),
        param_scheduler=[dict(s, warmup_epochs=0) for s in cfg.param_scheduler],
        default_hooks=hooks,
    )
    runner.model.init_weights()
    runner.model.init_weights = lambda: None  # so that training begins there
    before = {
        n: p.detach().clone()
        for n, p in runner.model.named_parameters()
        if n.endswith('_token') or n.startswith('head.')
    }
    runner.train()
    assert runner.iter == 2
    for n, value in before.items():
        assert not torch.equal(value, dict(runner.model.named_parameters())[n]), n


@pytest.mark.parametrize('name', NAMES)
def test_two_iterations(name, tmp_path, quick):
    """With fewer and narrower layers, and smaller images."""
    cfg = config(name)
    cfg.model.backbone.arch = ARCH
    cfg.model.backbone.img_size = {224: 32, 384: 48}[side_of(cfg)]
    cfg.model.head.in_channels = ARCH['embed_dims']
    train(cfg, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['deit_tiny', 'deit_small_distilled'])
def test_two_iterations_at_full_size(name, tmp_path, quick):
    train(config(name), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['deit_base_distilled_384', 'transfer/deit_base_distilled_cars'])
def test_two_iterations_at_full_width(name, tmp_path, quick):
    """Of three layers."""
    cfg = config(name)
    cfg.model.backbone.arch = {**DeiT.arch_zoo[cfg.model.backbone.arch], 'num_layers': 3}
    train(cfg, tmp_path)


PATHS = [path for path in sorted(CONFIGS.rglob('*.py')) if path.parent.name != '_base_']


@pytest.mark.parametrize('path', PATHS, ids=lambda path: path.stem)
def test_a_worker_makes_whole_batches(path):
    """mmengine's default sends a file descriptor for each image, of which 4,096 are soon gone."""
    cfg = Config.fromfile(path)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name)
        if loader is not None:
            allowed = ('default_collate', 'labels_collate')[: 1 + (name == 'train_dataloader')]
            assert loader.collate_fn.type in allowed and loader.persistent_workers
