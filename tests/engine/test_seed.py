"""A training that is killed and resumed ends as one that was not. (With two processes: test_distributed.)"""

import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmpretrain.datasets.samplers import repeat_aug
from trainings import dots, draw, resumed, same, stop_workers, training

from deit_plugin import virtual_processes
from deit_plugin.datasets import RepeatedAugmentSampler, seeded
from deit_plugin.datasets.seeded import PlacedSampler, get_placed_items
from deit_plugin.engine import SeedHook

pytestmark = pytest.mark.usefixtures('quick')
REPEATED = dict(type='RepeatedAugmentSampler', repeat=True)
ONCE = dict(type='RepeatedAugmentSampler', repeat=False)


@pytest.mark.parametrize(
    'sampler, randomness',
    [
        (REPEATED, dict(seed=None, diff_rank_seed=True)),
        (ONCE, dict(seed=0)),
    ],
)
def test_resumed_equals_uninterrupted(drawing_model, tmp_path, sampler, randomness):
    """With workers instead of none, and no validation in between."""
    whole, again = tmp_path / 'whole', tmp_path / 'again'
    kwargs = dict(sampler=sampler, randomness=randomness)
    training(drawing_model, whole, **kwargs).train()
    kwargs.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    resumed(drawing_model, again, whole / 'epoch_1.pth', workers=2, **kwargs)
    assert 'gradients' in torch.load(whole / 'epoch_1.pth')
    assert 'gradients' not in torch.load(whole / 'epoch_2.pth')
    assert same(whole / 'epoch_4.pth', again / 'epoch_4.pth')


class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 12:  # in the third epoch
            raise KeyboardInterrupt


def test_killed_amid_an_epoch(drawing_model, tmp_path):
    """With workers before it; the seed is read from the checkpoint."""
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    training(drawing_model, whole, randomness=dict(seed=3)).train()
    runner = training(drawing_model, killed, workers=2, randomness=dict(seed=3))
    runner.register_hook(Kill())
    with pytest.raises(KeyboardInterrupt):
        runner.train()
    stop_workers(runner)
    assert not (killed / 'epoch_3.pth').exists()
    resumed(drawing_model, tmp_path / 'hook', killed / 'epoch_2.pth')
    assert same(whole / 'epoch_4.pth', tmp_path / 'hook' / 'epoch_4.pth')
    resumed(drawing_model, tmp_path / 'none', killed / 'epoch_2.pth', seed_hook=False)
    assert not same(whole / 'epoch_4.pth', tmp_path / 'none' / 'epoch_4.pth')


@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'DefaultSampler'])
def test_training_by_iteration(drawing_model, tmp_path, monkeypatch, sampler):
    monkeypatch.setattr(time, 'sleep', lambda _: None)  # between the passes
    whole, again = tmp_path / 'whole', tmp_path / 'again'
    kwargs = dict(
        sampler=dict(type=sampler),
        randomness=dict(seed=None),
        train_cfg=dict(by_epoch=False, max_iters=10),
        param_scheduler=None,
        val_cfg=None,
        val_dataloader=None,
        val_evaluator=None,
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=7),
            batch=dict(type='GlobalBatchHook', batch_size=8),
            seed=dict(type='SeedHook'),
        ),
    )
    training(drawing_model, whole, **kwargs).train()
    resumed(drawing_model, again, whole / 'iter_7.pth', workers=2, **kwargs)
    assert same(whole / 'iter_10.pth', again / 'iter_10.pth')


def test_processes_draw_apart(monkeypatch):
    """Each copy of an image, in repeated augmentation, and each iteration."""
    samples, iterations = [], set()
    runner = SimpleNamespace(iter=7, train_dataloader=SimpleNamespace(batch_size=4))
    monkeypatch.setattr(seeded, 'get_world_size', lambda: 2)
    for rank in range(2):
        for module in (repeat_aug, virtual_processes):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, 2))
        dataset = dots()
        sampler = RepeatedAugmentSampler(dataset, repeat=True, seed=0)
        samples += PlacedSampler(sampler, 0)
        hook = SeedHook()
        hook.seed, hook.virtual = 0, virtual_processes.VirtualProcesses(2, 4)
        hook.before_train_iter(runner, 0)
        iterations.add(draw())
        hook.after_train_iter(runner, 0)
    assert len(set(samples)) == 7 and len(samples) == 20
    assert len(set(sample.place for sample in samples)) == 20
    drawn = [item['data_samples'].drawn for item in get_placed_items(dataset, None, samples)]
    assert len(set(drawn)) == 20
    assert len(iterations) == 2


def test_needs_a_sampler():
    loader = torch.utils.data.DataLoader(dots(), batch_size=None)
    runner = SimpleNamespace(seed=0, logger=MMLogger('test'), train_dataloader=loader)
    with pytest.raises(ValueError, match='batch_size and a sampler'):
        SeedHook().before_train(runner)
