"""Each config of the recipe builds and trains, without data or network."""

import glob
import os.path as osp

import numpy as np
import pytest
import torch
from conftest import CONFIGS, make_runner
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS, TRANSFORMS

from deit_plugin.models.rand_augment import RandAugment

ROOT = str(CONFIGS)
NAMES = sorted(
    osp.relpath(f, ROOT)[:-3]
    for pattern in ('*.py', 'transfer/*.py')
    for f in glob.glob(osp.join(ROOT, pattern))
    if 'digits' not in f and 'simmim' not in f
)

DIGITS = sorted(osp.basename(f)[:-3] for f in glob.glob(osp.join(ROOT, '*digits*.py')))


def load(name):
    return Config.fromfile(osp.join(ROOT, f'{name}.py'))


def test_none_is_missing():
    assert len(DIGITS) == 3
    assert len([n for n in NAMES if n.startswith('transfer')]) == 6 * 4
    assert len(NAMES) == 6 * 4 + 6 + 2 + 1 + 3 + 1 + 6


def stand_in(cfg):
    """A teacher of as many classes, without weights to download."""
    return dict(type='TimmClassifier', model_name='resnet10t', num_classes=cfg.model.head.num_classes)


def build(name, folder):
    cfg = load(name)
    optim = cfg.optim_wrapper
    assert optim.pop('type') == 'AmpOptimWrapper'  # which needs a GPU
    del optim['dtype'], optim['loss_scale']
    model = cfg.model.to_dict()
    model['data_preprocessor'] = cfg.data_preprocessor.to_dict()
    if 'teacher' in model:
        assert model['teacher']['num_classes'] == 1000
        model['teacher'] = stand_in(cfg)
    side = cfg.model.backbone.get('img_size', 224)
    loader = cfg.train_dataloader
    hooks = cfg.default_hooks.to_dict()
    hooks.pop('visualization')
    hooks.update(checkpoint=None)  # nothing is written
    return cfg, make_runner(
        model,
        folder,
        scores=[0.0],
        train_dataloader=dict(
            dataset=dict(type='Noise', size=4, side=side, num_classes=cfg.model.head.num_classes),
            batch_size=2,
            drop_last=loader.drop_last,
            sampler=loader.sampler.to_dict(),
            collate_fn=dict(type='default_collate'),
        ),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        optim_wrapper=optim.to_dict(),
        param_scheduler=[dict(s) for s in cfg.param_scheduler],
        default_hooks=hooks,
    )


def make_pipeline(loader):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([TRANSFORMS.build(t) for t in loader.dataset.pipeline])


@pytest.mark.parametrize('name', [n for n in NAMES if 'cifar' in n])
def test_cifar_reaches_the_model_in_rgb(name, monkeypatch):
    cfg = load(name)
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
def test_pipelines_and_evaluator(name):
    cfg = load(name)
    side = cfg.model.backbone.get('img_size', 224)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        pipeline = make_pipeline(loader)
        if loader.dataset.pipeline[0].type == 'LoadImageFromFile':
            pipeline.transforms.pop(0)
        image = torch.randint(0, 256, (300, 400, 3), dtype=torch.uint8).numpy()
        out = pipeline(dict(img=image, gt_label=3))
        assert out['inputs'].shape == (3, side, side)
        assert out['inputs'].dtype == torch.uint8
        assert out['inputs'].is_contiguous()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        Evaluator(cfg.test_evaluator)
    assert cfg.data_preprocessor.type == 'DeiTDataPreprocessor'
    assert cfg.data_preprocessor.rand_augment == dict()
    assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes
    assert cfg.default_hooks.finite_loss.type == 'FiniteLossHook'
    assert cfg.default_hooks.seed.type == 'SeedHook'
    assert cfg.randomness == dict(seed=0, deterministic=False)
    assert cfg.optim_wrapper.constructor == 'GroupedOptimWrapperConstructor'
    with open(osp.join(ROOT, f'{name}.py')) as file:
        text = file.read()
    assert f'mim train mmpretrain configs/{name}.py' in text
    assert 'ublished' in text and 'GPUs x' in text


@pytest.mark.parametrize('name', DIGITS)
def test_digits_config_trains(name, tmp_path):
    """As it is, on a part of the images."""
    cfg = load(name)
    assert cfg.data_preprocessor.type == 'DeiTDataPreprocessor'
    assert cfg.train_pipeline[0].type == 'LoadRandomResizedCrop'
    cfg.work_dir = str(tmp_path)
    cfg.train_cfg.max_epochs = 2
    cfg.param_scheduler[0].end = cfg.param_scheduler[1].begin = 1
    for loader, size in ((cfg.train_dataloader, 128), (cfg.val_dataloader, 20)):
        loader.num_workers, loader.persistent_workers = 0, False
        loader.dataset.indices = size
    if 'teacher_labels' in cfg.model:
        cfg.model.teacher_labels.path = str(tmp_path / 'labels')
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    runner.model.init_weights = lambda: None  # so that training begins there
    before = [p.detach().clone() for p in runner.model.parameters()]
    runner.train()
    assert runner.iter == 4
    for old, new in zip(before, runner.model.parameters()):
        assert not torch.equal(old, new)
    assert len(runner.optim_wrapper.optimizer.param_groups) == 2


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_two_iterations_at_full_width(name, tmp_path):
    _, runner = build(name, tmp_path)
    if name.startswith('transfer'):  # the ImageNet configs train all layers
        backbone = runner.model.backbone
        del backbone.layers[3:]
        backbone.num_layers, backbone.out_indices = 3, [2]
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
