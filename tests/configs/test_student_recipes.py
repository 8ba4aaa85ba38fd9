"""The students' recipes against the original repositories, row by row: their figures, timm's schedule and
groups, and the rates in RepViT's logs. The commits are those that the configs name."""

import functools
import math
import re

import conftest
import numpy as np
import pytest
import torch
from conftest import CONFIGS, build
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from test_recipe import make_schedule
from timm.layers import DropPath
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler

NAMES = sorted(path.stem for path in (CONFIGS / 'students').glob('*.py') if 'digits' not in path.stem)
# main.py of each repository, and FastViT's README: epochs, images of a GPU (of 8), rate and for how many
# images, first rate, decay, clipping, float16.
FAMILIES = dict(
    levit=dict(epochs=1000, images=256, lr=5e-4, per=512, warmup_lr=1e-6, decay=0.025, clip=0.01, half=False),
    efficientformer=dict(
        epochs=300, images=128, lr=1e-3, per=1024, warmup_lr=1e-5, decay=0.025, clip=0.01, half=False
    ),
    repvit=dict(epochs=300, images=256, lr=1e-3, per=512, warmup_lr=1e-6, decay=0.025, clip=0.02, half=True),
    fastvit=dict(epochs=310, images=128, lr=1e-3, per=1024, warmup_lr=1e-6, decay=0.05, clip=None, half=True),
)
# logs/*.txt of THU-MIG/RepViT: `train_lr` of epochs 2, 6 and the last. Epochs 0 and 1 are at 1e-6.
LOGS = dict(
    repvit_m0_9=(6.008e-4, 0.0029979511544580427, 1.0327878205106021e-05),
    repvit_m0_9_450e=(8.008e-4, 0.003998784699903044, 1.0194464601437938e-05),
    repvit_m1_0=(8.008e-4, 0.003997265921835383, 1.0437536467683126e-05),
    repvit_m1_0_450e=(8.008e-4, 0.003998784699903044, 1.0194464601437938e-05),
    repvit_m1_1=(8.008e-4, 0.003997265921835383, 1.0437536467683126e-05),
    repvit_m1_1_450e=(8.008e-4, 0.003998784699903044, 1.0194464601437938e-05),
    repvit_m1_5=(8.008e-4, 0.003997265921835383, 1.0437536467683126e-05),
    repvit_m1_5_450e=(8.008e-4, 0.003998784699903044, 1.0194464601437938e-05),
    repvit_m2_3=(4.008e-4, 0.0019986363870807653, 1.0218219942528797e-05),
    repvit_m2_3_450e=(4.008e-4, 0.0019993938728840033, 1.009698861074248e-05),
)
# The drop path, and in how many blocks it rises from 0: LeViT's does not rise. Of the others it is 0.
DROP_PATH = dict(
    levit_384=(0.1, None),
    efficientformerv2_s2=(0.02, 28),
    efficientformerv2_l=(0.1, 35),
    fastvit_sa24=(0.05, 24),
    fastvit_sa36=(0.1, 36),
    fastvit_ma36=(0.2, 36),
)
read = functools.cache(lambda name: conftest.config(f'students/{name}'))


def recipe(name):
    """The config, and what the original says."""
    return read(name), next(f for key, f in FAMILIES.items() if name.startswith(key))


@functools.cache
def rates(lr, epochs, **schedule):
    """The rate of each epoch."""
    wrapper = OptimWrapper(torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=lr))
    cfg = Config(dict(param_scheduler=[schedule], train_cfg=dict(max_epochs=epochs)))
    scheduler = make_schedule(cfg, wrapper)
    values = []
    for _ in range(epochs):
        values.append(wrapper.param_groups[0]['lr'])
        wrapper.optimizer.step()
        scheduler.step()
    return values


@functools.cache
def originals(lr, first, epochs, late, period):
    """In closed form and, for comparison, by timm's schedule."""
    steps = [min(max(epoch - late, 0), period) for epoch in range(epochs)]
    expected = [
        first + t * (lr - first) / 5
        if t < 5
        else 1e-5 + (lr - 1e-5) * (1 + math.cos(math.pi * t / period)) / 2
        for t in steps
    ]
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=lr)
    peer = CosineLRScheduler(optimizer, t_initial=period, lr_min=1e-5, warmup_t=5, warmup_lr_init=first)
    for epoch, value in enumerate(expected):
        assert optimizer.param_groups[0]['lr'] == pytest.approx(value, rel=1e-12)
        peer.step(epoch + 1 - late)
    return expected


@pytest.mark.parametrize('name', NAMES)
def test_rate_of_every_epoch(name):
    cfg, original = recipe(name)
    longer = re.search(r'_(\d+)e$', name)
    epochs = int(longer[1]) if longer else original['epochs']
    late, period = (0, 300) if 'fastvit' in name else (1, epochs)
    lr = original['lr'] * cfg.default_hooks.global_batch.batch_size / original['per']
    (schedule,) = cfg.param_scheduler
    got = rates(cfg.optim_wrapper.optimizer.lr, cfg.train_cfg.max_epochs, **schedule)
    expected = originals(lr, original['warmup_lr'], epochs, late, period)
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    if name in LOGS:
        assert got[:2] == [1e-6, 1e-6]
        np.testing.assert_allclose([got[2], got[6], got[-1]], LOGS[name], rtol=1e-12)


@pytest.mark.parametrize('name', NAMES)
def test_precision_decay_and_clipping(name):
    cfg, original = recipe(name)
    options = cfg.optim_wrapper.to_dict()
    adamw = dict(type='AdamW', betas=(0.9, 0.999), eps=1e-8, weight_decay=original['decay'])
    assert dict(options.pop('optimizer'), lr=None) == dict(adamw, lr=None)
    clip = dict(type='agc', clip_factor=original['clip'], exclude_head=False)
    assert options.pop('clip_grad', None) == (clip if original['clip'] else None)
    half = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')
    options.pop('constructor'), options.pop('paramwise_cfg')
    assert options == (half if original['half'] else dict(type='OptimWrapper'))
    assert cfg.get('sync_bn') == ('torch' if 'efficientformer' in name else None)


@pytest.mark.parametrize('name', NAMES)
def test_batches_and_augmentation(name):
    cfg, original = recipe(name)
    deit = read('../deit_base_distilled')
    sampler, batch = cfg.train_dataloader.sampler, cfg.default_hooks.global_batch.batch_size
    assert sampler.batch_size == cfg.train_dataloader.batch_size
    assert batch == sampler.processes * sampler.batch_size
    if name not in ('repvit_m0_9', 'repvit_m2_3', 'repvit_m2_3_450e'):  # by the rates in the logs
        assert (sampler.processes, sampler.batch_size) == (8, original['images'])
    fastvit = 'fastvit' in name
    assert sampler.get('repeat', True) is not fastvit
    assert cfg.train_dataloader.drop_last and cfg.data_preprocessor == deit.data_preprocessor
    crop, resize = cfg.train_pipeline[0], cfg.test_pipeline[1]
    assert dict(crop, scale=224) == deit.train_pipeline[0]
    assert dict(resize, scale=256) == deit.test_pipeline[1]
    edge = 256 if not fastvit else int(256 / (0.95 if '36' in name else 0.9))
    side = 256 if fastvit else 224
    assert (crop.scale, resize.scale, cfg.test_pipeline[2].crop_size) == (side, edge, side)
    milder = name in ('fastvit_t8', 'fastvit_t12', 'fastvit_s12')
    mixup, cutmix = cfg.model.train_cfg.augments
    assert mixup == dict(type='Mixup', alpha=0.2 if milder else 0.8)
    assert cutmix == dict(type='CutMix', alpha=1.0)
    loss = dict(cfg.model.loss)
    assert loss.pop('base_loss') == dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    assert loss.pop('distill_on', 'dist') == ('cls' if fastvit else 'dist')
    assert loss == dict(type='DistillationLoss', mode='hard', alpha=0.5)
    assert cfg.model.teacher == deit.model.teacher


@pytest.mark.parametrize(
    'name', ['levit_128s', 'efficientformer_l1', 'efficientformerv2_s0', 'repvit_m0_9', 'fastvit_sa12']
)
def test_decay_and_clipping_of_each_parameter(name):
    cfg, original = recipe(name)
    with torch.device('meta'):
        model = build(cfg.model)
    options = dict(cfg.optim_wrapper, type='OptimWrapper')
    options.update(constructor='mmpretrain.GroupedOptimWrapperConstructor', dtype=None, loss_scale=None)
    del options['dtype'], options['loss_scale']
    wrapper = build_optim_wrapper(model, options)
    exempt = [n for n, _ in model.named_parameters() if 'levit' in name and 'attention_biases' in n]
    peers = param_groups_weight_decay(model, original['decay'], no_weight_decay_list=exempt)
    expected = {id(p): group['weight_decay'] for group in peers for p in group['params']}
    if 'v2' in name:  # of three dimensions there
        scales = [id(p) for n, p in model.named_parameters() if re.search(r'\.ls\d\.gamma$', n)]
        assert scales and all(expected[scale] == 0 for scale in scales)
        expected.update(dict.fromkeys(scales, original['decay']))
    groups = wrapper.optimizer.param_groups
    assert {id(p): group['weight_decay'] for group in groups for p in group['params']} == expected
    assert len(groups) == 2
    if original['clip']:
        assert wrapper.clip_func.clipped == expected.keys()  # the head too
    assert not any(isinstance(module, DropPath) for module in model.modules())


@pytest.mark.parametrize('name', NAMES)
def test_drop_path_of_each_block(name):
    model = recipe(name)[0].model
    rate, blocks = DROP_PATH.get(re.sub(r'_\d+e$', '', name), (0.0, None))
    assert model.get('drop_path_rate', 0.0) == rate
    if rate:
        with torch.device('meta'):
            modules = build(dict(model, teacher=None, loss=dict(type='CrossEntropyLoss'))).modules()
        found = [module.drop_prob for module in modules if isinstance(module, DropPath)]
        expected = [rate * i / (blocks - 1) for i in range(1, blocks)] if blocks else [rate]
        np.testing.assert_allclose(list(dict.fromkeys(found)), expected, rtol=1e-6)
