"""Each config of the recipe builds and trains, without data or network."""
import glob
import os.path as osp

import numpy as np
import pytest
import torch
from conftest import make_runner
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS, TRANSFORMS

ROOT = osp.join(osp.dirname(__file__), '..', 'configs')
NAMES = sorted(
    osp.relpath(f, ROOT)[:-3] for pattern in ('*.py', 'transfer/*.py')
    for f in glob.glob(osp.join(ROOT, pattern))
    if 'digits' not in f and 'simmim' not in f)


def load(name):
    return Config.fromfile(osp.join(ROOT, f'{name}.py'))


def test_none_is_missing():
    assert len([n for n in NAMES if n.startswith('transfer')]) == 6 * 4
    assert len(NAMES) == 6 * 4 + 6 + 2 + 1 + 3 + 1 + 6


def stand_in(cfg):
    """A teacher of as many classes, without weights to download."""
    return dict(
        type='TimmClassifier',
        model_name='resnet10t',
        num_classes=cfg.model.head.num_classes)


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
        scores=[0.],
        train_dataloader=dict(
            dataset=dict(
                type='Noise',
                size=4,
                side=side,
                num_classes=cfg.model.head.num_classes),
            batch_size=2,
            drop_last=loader.drop_last,
            sampler=loader.sampler.to_dict(),
            collate_fn=dict(type='default_collate')),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        optim_wrapper=optim.to_dict(),
        param_scheduler=[dict(s) for s in cfg.param_scheduler],
        default_hooks=hooks)


def test_cifar_reaches_the_model_in_rgb():
    cfg = load('transfer/deit_base_cifar10')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([
            TRANSFORMS.build(t)
            for t in cfg.test_dataloader.dataset.pipeline
        ])
    red = np.zeros((32, 32, 3), dtype=np.uint8)
    red[..., 0] = 255  # as mmpretrain's dataset gives it
    inputs = pipeline(dict(img=red, gt_label=0))['inputs']
    batch = MODELS.build(dict(cfg.data_preprocessor))(
        dict(inputs=inputs[None]))['inputs']
    assert (batch[0, 0] > 2).all() and (batch[0, 1:] < -1).all()


@pytest.mark.parametrize('name', NAMES)
def test_pipelines_and_evaluator(name):
    cfg = load(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            pipeline = Compose(
                [TRANSFORMS.build(t) for t in loader.dataset.pipeline])
            if loader.dataset.pipeline[0].type == 'LoadImageFromFile':
                pipeline.transforms.pop(0)
            side = cfg.model.backbone.get('img_size', 224)
            image = torch.randint(
                0, 256, (300, 400, 3), dtype=torch.uint8).numpy()
            out = pipeline(dict(img=image, gt_label=3))
            assert out['inputs'].shape == (3, side, side)
        Evaluator(cfg.test_evaluator)
    assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes
    assert cfg.default_hooks.finite_loss.type == 'FiniteLossHook'
    with open(osp.join(ROOT, f'{name}.py')) as file:
        text = file.read()
    assert f'mim train mmpretrain configs/{name}.py' in text
    assert 'ublished' in text and 'GPUs x' in text


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
        assert not torch.equal(value, dict(
            runner.model.named_parameters())[n]), n
