"""The reference's recipe, row by row, against timm, Pillow or its figures."""

import copy
import functools
import math

import conftest
import numpy as np
import pytest
import timm
import torch
from conftest import ROOT, build, make_runner, shuffle_weights, to_timm
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import DATA_SAMPLERS, DATASETS, PARAM_SCHEDULERS, TRANSFORMS
from PIL import Image
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler

from deit_plugin.datasets import samplers as sampler_module
from deit_plugin.engine import GlobalBatchHook
from deit_plugin.engine.hooks import global_batch as schedule

IMAGENET_TRAIN = 1281167


read = functools.cache(conftest.config)  # which takes longer than most of these tests


def config(name):
    return copy.deepcopy(read(name))


def make_optimizer(cfg, model):
    """As the config has it, but for the precision, which needs a GPU."""
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    assert wrapper.pop('type') == 'AmpOptimWrapper'
    assert wrapper.pop('dtype') == 'float16'
    assert wrapper.pop('loss_scale') == 'dynamic'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return build_optim_wrapper(model, wrapper)


def make_schedule(cfg, wrapper):
    assert len(cfg.param_scheduler) == 1
    return PARAM_SCHEDULERS.build(
        dict(cfg.param_scheduler[0], optimizer=wrapper, end=cfg.train_cfg.max_epochs)
    )


def rates(cfg, resume_at=()):
    """The learning rate of each epoch, in runs of the same training."""
    wrapper = make_optimizer(cfg, torch.nn.Linear(2, 2))
    scheduler = make_schedule(cfg, wrapper)
    values = []
    for epoch in range(cfg.train_cfg.max_epochs):
        if epoch in resume_at:
            state = copy.deepcopy((wrapper.state_dict(), scheduler.state_dict()))
            wrapper = make_optimizer(cfg, torch.nn.Linear(2, 2))
            scheduler = make_schedule(cfg, wrapper)
            wrapper.load_state_dict(state[0])
            scheduler.load_state_dict(state[1])
        values.append(wrapper.param_groups[0]['lr'])
        wrapper.optimizer.step()
        scheduler.step()
    return values


SCHEDULES = [
    ('deit_base', 300, 1e-3, 1e-5),
    ('deit_tiny_distilled_1000e', 1000, 1e-3, 1e-5),
    ('deit_base_384', 30, 5e-6, 5e-6),
    ('transfer/deit_base_flowers', 1000, 7.5e-6, 1e-5),
]


@pytest.mark.parametrize('name, epochs, lr, min_lr', SCHEDULES)
def test_learning_rate_of_every_epoch(name, epochs, lr, min_lr):
    cfg = config(name)
    assert cfg.train_cfg.max_epochs == epochs
    got = rates(cfg)
    # in closed form
    f = [
        1e-6 + t * (lr - 1e-6) / 5
        if t < 5
        else min_lr + (lr - min_lr) * (1 + math.cos(math.pi * t / epochs)) / 2
        for t in range(epochs)
    ]
    np.testing.assert_allclose(got, [f[0], *f[:-1]], rtol=1e-12)
    # timm's schedule, stepped after each epoch with that epoch's number
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=lr)
    peer = CosineLRScheduler(optimizer, t_initial=epochs, lr_min=min_lr, warmup_t=5, warmup_lr_init=1e-6)
    for epoch, value in enumerate(got):
        assert value == pytest.approx(optimizer.param_groups[0]['lr'])
        peer.step(epoch)
    resumed = rates(cfg, resume_at=(1, 5, 6, epochs // 2, epochs - 1))
    assert resumed == got


def test_learning_rates_that_the_recipe_names():
    got = rates(config('deit_base'))
    for epoch, value in {0: 1e-6, 1: 1e-6, 2: 2.008e-4, 6: 9.993e-4, 299: 1.011e-5}.items():
        assert got[epoch] == pytest.approx(value, rel=1e-3)
    assert max(got) == got[6]
    np.testing.assert_allclose(
        rates(config('deit_base_384'))[:8], [1e-6, 1e-6, 1.8e-6, 2.6e-6, 3.4e-6, 4.2e-6, 5e-6, 5e-6]
    )


def test_learning_rate_of_cifar100_rises_to_the_smallest():
    """Which the author left at the reference's default (facebookresearch/deit#117)."""
    got = rates(config('transfer/deit_base_cifar100'))
    assert got == sorted(got)
    assert got[5:7] == pytest.approx([4.2e-6, 5e-6], rel=1e-3) and got[-1] == pytest.approx(1e-5, rel=1e-3)


def test_schedule_needs_epochs():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=1.0)
    for kwargs in (dict(), dict(end=9, by_epoch=False)):
        with pytest.raises(ValueError, match='needs the number of epochs'):
            PARAM_SCHEDULERS.build(dict(type='DeiTLR', optimizer=optimizer, **kwargs))


@pytest.mark.parametrize('name', ['deit_tiny_distilled', 'deit_tiny', 'deit_base_384'])
def test_weight_decay_of_each_parameter(name):
    cfg = config(name)
    cfg.model.backbone.arch = 'tiny'
    cfg.model.head.in_channels = 192
    model = build(cfg.model)
    wrapper = make_optimizer(cfg, model)
    decay = {
        id(p): group['weight_decay'] for group in wrapper.optimizer.param_groups for p in group['params']
    }
    base = 1e-8 if '384' in name else 0.05
    peers = param_groups_weight_decay(
        model, base, no_weight_decay_list=('backbone.pos_embed', 'backbone.cls_token')
    )
    expected = {id(p): group['weight_decay'] for group in peers for p in group['params']}
    assert decay == expected
    zero = {n for n, p in model.named_parameters() if decay[id(p)] == 0}
    assert {'backbone.cls_token', 'backbone.pos_embed'} <= zero
    assert 'backbone.dist_token' not in zero
    assert wrapper.optimizer.defaults['betas'] == (0.9, 0.999)
    assert wrapper.optimizer.defaults['eps'] == 1e-8
    assert type(wrapper.optimizer) is torch.optim.AdamW
    assert not wrapper.clip_grad_kwargs
    assert [g['weight_decay'] for g in wrapper.optimizer.param_groups] == [0, base]


def test_plain_head_is_drawn_as_the_recipe_says():
    model = build(config('deit_tiny').model)
    model.init_weights()
    head = model.head.layers.head
    assert abs(head.weight.std() - 0.02) < 5e-4 and (head.bias == 0).all()


class FakeRunner:
    """As much of a runner as the hook needs."""

    def __init__(self, cfg, accumulative_counts=1):
        self.optim_wrapper = make_optimizer(cfg, torch.nn.Linear(2, 2))
        self.optim_wrapper._accumulative_counts = accumulative_counts
        self.param_schedulers = [make_schedule(cfg, self.optim_wrapper)]
        self.train_dataloader = type('Loader', (), dict(batch_size=cfg.train_dataloader.batch_size))
        self.lines = []
        self.logger = type('Log', (), dict(info=self.lines.append, warning=self.lines.append))


def apply(hook, runner):
    hook.before_run(runner)
    hook.before_train(runner)


# processes, accumulation for: base (64), tiny and small (256), 384 (32)
@pytest.mark.parametrize(
    'processes, base, small, at_384', [(1, 16, 4, 16), (4, 4, 1, 4), (8, 2, 1, 2), (16, 1, 1, 1)]
)
def test_batch_arithmetic(monkeypatch, processes, base, small, at_384):
    monkeypatch.setattr(schedule, 'get_world_size', lambda: processes)
    for name, batch, count, rate in (
        ('deit_base', 1024, base, 1e-3),
        ('deit_tiny', 1024, small, 1e-3),
        ('deit_base_384', 512, at_384, 5e-6),
    ):
        cfg = config(name)
        runner = FakeRunner(cfg)
        apply(GlobalBatchHook(cfg.default_hooks.global_batch.batch_size), runner)
        assert runner.optim_wrapper._accumulative_counts == count
        size = cfg.train_dataloader.batch_size
        real = size * processes * count
        peak = runner.optim_wrapper.param_groups[0]['initial_lr']
        # as the reference: 5e-4 x batch / 512 (384: 5e-6 x batch / 512)
        assert peak == pytest.approx(rate * real / batch)
        assert runner.param_schedulers[0].base_values[0] == peak
        # the warm-up begins at an absolute rate
        assert runner.optim_wrapper.param_groups[0]['lr'] == 1e-6
        if real == batch:
            assert peak == rate
        assert runner.lines[0] == (
            f'Batch: {size} images x {processes} process(es) x {count} '
            f'accumulated = {real} (recipe: {batch}); learning rate '
            f'{peak:.4g}'
        )
        assert len(runner.lines) == 1 + (real > batch)  # a warning


def test_batch_that_cannot_be_met(monkeypatch):
    monkeypatch.setattr(schedule, 'get_world_size', lambda: 3)
    cfg = config('deit_base')
    cfg.train_dataloader.batch_size = 100
    runner = FakeRunner(cfg)
    apply(GlobalBatchHook(1024), runner)  # 3 x 100 x 3
    assert set(runner.param_schedulers[0].base_values) == {1e-3 * 900 / 1024}
    runner = FakeRunner(cfg, accumulative_counts=2)  # the user's own choice
    apply(GlobalBatchHook(1024), runner)
    assert set(runner.param_schedulers[0].base_values) == {1e-3 * 600 / 1024}
    with pytest.raises(ValueError, match='batch_size=0'):
        GlobalBatchHook(0)


def test_rate_after_resuming_with_another_batch(distilled_cfg, tmp_path, quick):
    def runner(size, **kwargs):
        return make_runner(
            distilled_cfg,
            tmp_path,
            scores=(1.0, 2.0, 3.0),
            train_dataloader=dict(
                dataset=dict(type='Noise', size=8),
                batch_size=size,
                sampler=dict(type='DefaultSampler', shuffle=False),
                collate_fn=dict(type='default_collate'),
            ),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            param_scheduler=[dict(type='DeiTLR', warmup_epochs=1)],
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', interval=1),
                batch=dict(type='GlobalBatchHook', batch_size=4),
            ),
            **kwargs,
        )

    first = runner(2)
    first.train()
    assert first.optim_wrapper._accumulative_counts == 2
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    second = runner(8, resume=True)
    second.train()
    for scheduler in second.param_schedulers:
        assert set(scheduler.base_values) == {2e-3}
    f = 1e-5 + (2e-3 - 1e-5) * (1 + math.cos(math.pi / 3)) / 2  # epoch 2
    assert second.optim_wrapper.param_groups[0]['lr'] == pytest.approx(f)


def make_sampler(monkeypatch, processes, rank=0, size=IMAGENET_TRAIN, **kw):
    monkeypatch.setattr(sampler_module, 'get_world_size', lambda: processes)
    monkeypatch.setattr('mmpretrain.datasets.samplers.repeat_aug.get_dist_info', lambda: (rank, processes))
    return DATA_SAMPLERS.build(dict(type='RepeatedAugmentSampler', dataset=range(size), seed=0, **kw))


@pytest.mark.parametrize('processes, batch', [(4, 256), (16, 64), (8, 128)])
def test_1251_iterations_an_epoch(monkeypatch, processes, batch):
    assert config('deit_base').train_dataloader.drop_last is True
    sampler = make_sampler(monkeypatch, processes)
    assert len(sampler) // batch == 1251
    assert sampler.num_repeats == 3


def test_repeated_augmentation(monkeypatch):
    seen, size = [], 30000
    for rank in range(4):
        sampler = make_sampler(monkeypatch, 4, rank, size)
        sampler.set_epoch(1)
        seen.append(list(sampler))
    assert all(len(s) == size // 4 for s in seen)
    counts = np.bincount(np.concatenate(seen), minlength=size)
    assert set(counts) == {0, 3} and (counts == 3).sum() == size // 3
    for index in np.flatnonzero(counts)[:50]:  # by different processes
        assert sum(index in s for s in map(set, seen)) == 3
    # about 427k of ImageNet's images, as the recipe says
    assert IMAGENET_TRAIN / 3 == pytest.approx(427e3, rel=1e-3)


@pytest.mark.parametrize(
    'processes, repeat, on',
    [(1, 'distributed', False), (2, 'distributed', True), (2, False, False), (1, True, True)],
)
def test_switch_of_repeated_augmentation(monkeypatch, processes, repeat, on):
    sampler = make_sampler(monkeypatch, processes, size=100, repeat=repeat)
    assert sampler.num_repeats == (3 if on else 1)
    if processes == 1 and not on:
        assert sorted(sampler) == list(range(100))
    with pytest.raises(ValueError, match="repeat='often'"):
        make_sampler(monkeypatch, 1, repeat='often')


@pytest.mark.parametrize('size', [(500, 375), (375, 500), (300, 301), (213, 640), (256, 256), (439, 438)])
@pytest.mark.parametrize('name, edge, crop', [('deit_base', 256, 224), ('deit_base_384', 438, 384)])
def test_evaluation_pixels_equal_pillow(tmp_path, size, name, edge, crop):
    path = tmp_path / 'image.jpg'
    Image.effect_noise(size, 80).resize(size).convert('RGB').rotate(7).save(path)
    cfg = config(name)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(t) for t in cfg.test_dataloader.dataset.pipeline])
    out = pipeline(dict(img_path=str(path), gt_label=0))

    image, (w, h) = Image.open(path).convert('RGB'), size
    short = min(w, h)
    image = image.resize((int(edge * w / short), int(edge * h / short)), Image.BICUBIC)
    left = int(round((image.width - crop) / 2.0))
    top = int(round((image.height - crop) / 2.0))
    image = np.asarray(image)[top : top + crop, left : left + crop]
    assert np.array_equal(out['inputs'].numpy()[::-1].transpose(1, 2, 0), image)

    preprocessor = build(dict(cfg.data_preprocessor))
    batch = preprocessor(dict(inputs=out['inputs'][None]), training=False)
    expected = (image / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(batch['inputs'][0].numpy().transpose(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_evaluation_loads_as_pillow(tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, which the reference does not see
    path = tmp_path / 'image.jpg'
    Image.effect_noise((60, 40), 80).convert(mode).save(path, exif=exif)
    load = TRANSFORMS.build(config('deit_base').test_dataloader.dataset.pipeline[0])
    expected = np.array(Image.open(path).convert('RGB'))
    loaded = load(dict(img_path=str(path)))['img']
    np.testing.assert_array_equal(loaded[..., ::-1], expected)


def test_missing_imagenet_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = config('deit_base').train_dataloader.dataset
    with (
        DefaultScope.overwrite_default_scope('mmpretrain'),
        pytest.raises(FileNotFoundError, match="not at 'data/imagenet/train'.*image-net.org.*ln -s"),
    ):
        DATASETS.build(dataset)


def test_head_is_replaced_only_for_other_classes():
    cfg = config('deit_tiny')
    model, other = build(cfg.model), build(cfg.model)
    load_state_dict(other, model.state_dict())
    assert torch.equal(other.head.layers.head.weight, model.head.layers.head.weight)
    cfg.model.head.num_classes = 10
    other = build(cfg.model)
    own = other.head.layers.head.weight.clone()
    load_state_dict(other, model.state_dict())
    assert torch.equal(other.head.layers.head.weight, own)
    assert torch.equal(other.backbone.cls_token, model.backbone.cls_token)


@pytest.mark.parametrize('name', ['deit_tiny', 'deit_small_distilled'])
def test_published_complexity(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'benchmarks')
    from complexity import PUBLISHED, count

    params, flops = PUBLISHED[name]
    assert count(name) == (params, pytest.approx(flops, rel=1e-3))


def test_384_from_224_equals_timm_resized():
    """timm's model, its position embeddings resized as the reference does;
    timm itself resizes with antialiasing."""
    for name in ('deit_base_distilled_384', 'deit_base_384'):
        cfg = config(name)
        cfg.model.backbone.arch = 'tiny'
        cfg.model.head.in_channels = 192
        cfg.model.teacher = None
        if 'distilled' not in name:
            cfg.model.pop('teacher')
        model = build(cfg.model).eval()
        small = copy.deepcopy(cfg.model)
        small.backbone.img_size = 224
        source = shuffle_weights(build(small))
        model.load_state_dict(source.state_dict())

        state = to_timm(source.state_dict())
        extra = 2 if 'distilled' in name else 1
        tokens, grid = state['pos_embed'].split([extra, 196], dim=1)
        grid = torch.nn.functional.interpolate(
            grid.reshape(1, 14, 14, -1).permute(0, 3, 1, 2),
            size=(24, 24),
            mode='bicubic',
            align_corners=False,
        )
        state['pos_embed'] = torch.cat([tokens, grid.permute(0, 2, 3, 1).reshape(1, 576, -1)], dim=1)
        peer = timm.create_model(
            f'deit_tiny_{"distilled_" if extra == 2 else ""}patch16_224', img_size=384
        ).eval()
        peer.load_state_dict(state)
        images = torch.randn(1, 3, 384, 384)
        with torch.inference_mode():
            torch.testing.assert_close(model(images), peer(images), atol=1e-4, rtol=0)
