"""A training that is killed and resumed ends as one that was not."""

import pickle
import random
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, RepeatDataset
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmpretrain.datasets.samplers import repeat_aug
from trainings import dots, draw, resumed, same, stop_workers, training

from deit_plugin.datasets import RepeatedAugmentSampler, seeded
from deit_plugin.datasets.seeded import PlacedSampler, get_placed_items, seed_cpu
from deit_plugin.engine import SeedHook
from deit_plugin.engine.hooks import seed as seeding

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


def two_processes(rank, folder, cfg):
    torch.set_num_threads(1)
    Config.pretty_text = ''
    dist.init_process_group('gloo', init_method=f'file://{folder}/group', rank=rank, world_size=2)
    kwargs = dict(
        launcher='pytorch',
        randomness=dict(seed=None, diff_rank_seed=True),
        sampler=REPEATED,
        batch_size=16,
        scores=(1.0,) * 2,
        model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None),
    )
    (folder / 'whole').mkdir(exist_ok=True)
    training(cfg, folder / 'whole', **kwargs).train()
    dist.barrier()
    resumed(cfg, folder / 'again', folder / 'whole' / 'epoch_1.pth', **kwargs)
    dist.destroy_process_group()


def test_gradients_of_two_processes(drawing_model, tmp_path, monkeypatch):
    """Three iterations an epoch, the last of them amid a step."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    mp.spawn(two_processes, (tmp_path, drawing_model), nprocs=2)
    whole = tmp_path / 'whole'
    assert 'gradients' in torch.load(whole / 'epoch_1.pth')
    assert same(whole / 'epoch_2.pth', tmp_path / 'again' / 'epoch_2.pth')


def items(dataset, indices):
    """What the pipeline draws for each sample, and from which image."""
    return [
        (i['data_samples'].sample_idx, i['data_samples'].drawn) for i in get_placed_items(dataset, indices)
    ]


def test_draws_depend_on_the_place_alone():
    dataset = dots()
    sampler = PlacedSampler(DefaultSampler(dataset, seed=5), 5)
    first, second = list(sampler), list(sampler)
    expected = items(dataset, first)
    assert len(set(drawn for _, drawn in expected)) == 20
    assert any(i != int(j) for (i, _), j in zip(expected, first))  # refetched
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert items(dataset, first[::-1]) == expected[::-1]
    assert pickle.loads(pickle.dumps(first[3])).place == (5, 0, 3)
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == str(before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    sampler = PlacedSampler(DefaultSampler(dataset, seed=5), 6)
    drawn = [set(d for _, d in items(dataset, indices)) for indices in (first, second, list(sampler))]
    assert len(set.union(*drawn)) == 60
    assert len(set(np.ravel(list(drawn[0])))) == 60  # by each generator


def test_datasets_in_datasets_and_spawned_workers():
    """As these pickle the dataset with what the hook adds to it."""
    dataset = RepeatDataset(dots(), 2)
    expected = items(dataset, list(PlacedSampler(range(40), 0)))
    assert len(set(drawn for _, drawn in expected)) == 40
    dataset.__getitems__ = partial(get_placed_items, dataset)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.__getitems__.args[0] is copy
    assert items(copy, list(PlacedSampler(range(40), 0))) == expected


def test_processes_draw_apart(monkeypatch):
    """Each copy of an image, in repeated augmentation, and each iteration."""
    samples, iterations = [], set()
    runner = SimpleNamespace(iter=7)
    for rank in range(2):
        for module in (repeat_aug, seeded):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, 2))
        dataset = dots()
        sampler = RepeatedAugmentSampler(dataset, repeat=True, seed=0)
        samples += PlacedSampler(sampler, 0)
        monkeypatch.setattr(seeding, 'get_rank', lambda: rank)
        hook = SeedHook()
        hook.seed = 0
        hook.before_train_iter(runner, 0)
        iterations.add(draw())
    assert len(set(samples)) == 7 and len(samples) == 20
    assert len(set(sample.place for sample in samples)) == 20
    assert len(set(drawn for _, drawn in items(dataset, samples))) == 20
    assert len(iterations) == 2


def test_same_place_of_a_sample_and_an_iteration():
    seeds = {seed_cpu(kind, 0, 1, 2) for kind in ('sample', 'iteration')}
    assert len(seeds) == 2
    seed_cpu('sample', 0, 1, 2)
    first = draw()
    seed_cpu('sample', 0, 1, 2)
    assert draw() == first and len(set(first)) == 3


def test_needs_a_sampler():
    loader = torch.utils.data.DataLoader(dots(), batch_size=None)
    runner = SimpleNamespace(seed=0, logger=MMLogger('test'), train_dataloader=loader)
    with pytest.raises(ValueError, match='batch_size and a sampler'):
        SeedHook().before_train(runner)
