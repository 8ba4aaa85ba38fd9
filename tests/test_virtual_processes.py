"""A training is the same one on any number of processes, with any batch."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ARCH, build, distilled
from mmengine.runner import Runner
from mmpretrain.datasets.samplers import repeat_aug
from mmpretrain.registry import MODELS
from PIL import Image
from trainings import PIPELINE, resumed, same, training

from deit_plugin import virtual_processes
from deit_plugin.datasets import ImageFolder, RepeatedAugmentSampler, samplers, seeded
from deit_plugin.datasets.seeded import place_draws
from deit_plugin.draws import current_iteration, parts, set_iteration
from deit_plugin.engine import SeedHook
from deit_plugin.engine.resuming import fit_place
from deit_plugin.models.layers import DropPath, draw_paths
from deit_plugin.virtual_processes import VirtualProcesses

RECIPE = VirtualProcesses(4, 2)
CHECKPOINT = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1))


@pytest.fixture
def on(monkeypatch):
    """Makes this process one of several."""

    def as_rank(rank, processes):
        for module in (repeat_aug, virtual_processes):
            monkeypatch.setattr(module, 'get_dist_info', lambda: (rank, processes))
        for module in (samplers, seeded):
            monkeypatch.setattr(module, 'get_world_size', lambda: processes)

    yield as_rank
    set_iteration(None)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    random = np.random.RandomState(0)
    for i in range(21):
        (root / 'ab'[i % 2]).mkdir(exist_ok=True)
        pixels = random.randint(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / 'ab'[i % 2] / f'{i}.png')
    return root


def loader_of(folder, batch_size, workers=0, dataset=None):
    pipeline = [dict(type='LoadRandomResizedCrop', scale=32), dict(type='PackInputs')]
    return Runner.build_dataloader(
        dict(
            dataset=dataset or ImageFolder(data_root=str(folder), pipeline=pipeline),
            batch_size=batch_size,
            num_workers=workers,
            drop_last=True,
            collate_fn=dict(type='labels_collate'),
            sampler=dict(type='mmpretrain.RepeatedAugmentSampler', processes=4, batch_size=2),
        ),
        seed=1,
    )


def seen(folder, on, processes, batch_size, workers=0):
    """What the model gets of each virtual process in each step of two epochs, and which paths it drops."""
    mixing = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
    preprocessor = MODELS.build(
        dict(
            type='mmpretrain.DeiTDataPreprocessor',
            num_classes=2,
            mean=[120.0] * 3,
            std=[60.0] * 3,
            rand_augment=dict(),
            erasing=0.5,
            batch_augments=mixing,
        )
    )
    paths, found = [DropPath(0.5), DropPath(0.2)], {}
    for rank in range(processes):
        on(rank, processes)
        loader = loader_of(folder, batch_size, workers)
        sampler = place_draws(loader, 1)
        iterations = range(2 * len(loader))
        for epoch in range(2):
            sampler.sampler.set_epoch(epoch)
            for i, batch in zip(iterations[epoch * len(loader) :], loader):
                set_iteration(sampler.virtual.at(1, i, batch_size))
                given = preprocessor(batch, training=True)
                scales = draw_paths(paths, batch_size, torch.device('cpu'))
                scores = torch.stack([sample.gt_score for sample in given['data_samples']])
                of_batch = [given['inputs'], scores, *scales]
                iteration = current_iteration()
                for process, part in zip(iteration.processes, zip(*(t.split(2) for t in of_batch))):
                    assert found.setdefault((iteration.step, process), part) is part
    return found


@pytest.mark.parametrize('processes, batch_size', [(1, 4), (1, 8), (2, 2), (2, 4), (4, 2)])
@pytest.mark.parametrize('workers', [0, 2])
def test_the_model_sees_the_same(processes, batch_size, workers, folder, on):
    expected = seen(folder, on, 1, 2)
    found = seen(folder, on, processes, batch_size, workers)
    # Of 21 images each of 4 processes has 6 in an epoch: 3 steps.
    assert found.keys() == expected.keys() == {(step, p) for step in range(6) for p in range(4)}
    for place, tensors in expected.items():
        assert all(map(torch.equal, tensors, found[place]))
    images = [part[0] for part in expected.values()]
    assert len({image.numpy().tobytes() for part in images for image in part}) == 48  # all apart
    assert len({part[2].tolist().__str__() for part in expected.values()}) > 1


def test_copies_of_an_image_go_to_different_processes(on):
    """On one process, too; as mmpretrain's sampler has it on four."""
    of_process = []
    for rank in range(4):
        on(rank, 4)
        of_process.append(list(repeat_aug.RepeatAugSampler(range(24), seed=0)))
    on(0, 1)
    sampler = RepeatedAugmentSampler(range(24), seed=0, processes=4, batch_size=2)
    drawn = torch.tensor(list(sampler)).view(3, 4, 2)  # (steps, processes, images)
    assert drawn.transpose(0, 1).reshape(4, 6).tolist() == of_process
    assert len(set(drawn.flatten().tolist())) == 8  # a third
    for step in drawn.tolist():
        for images in step:
            assert len(set(images)) == 2


@pytest.mark.parametrize(
    'processes, batch_size, message',
    [
        (3, 2, 'has 4 processes of 2 images, which 3 cannot share: run 1, 2 or 4 processes$'),
        (
            8,
            1,
            'run 1, 2 or 4 processes, or train another run: `.*processes=8 .*batch_size=1 .*batch_size=1`',
        ),
        (1, 3, 'of which each of 1 carries 4; a batch of 3 does not fit: set `.*` to 2, 4 or 8. If'),
        (1, 6, 'set `train_dataloader.batch_size` to 2, 4 or 8'),
        (2, 8, 'set `train_dataloader.batch_size` to 2 or 4'),
        (4, 1, 'to 2. If .* `model.backbone.with_cp=True`, .*sampler.processes=8 .*sampler.batch_size=1'),
    ],
)
def test_what_cannot_be_shared_is_refused(processes, batch_size, message, on):
    on(0, processes)
    with pytest.raises(ValueError, match=message):
        RECIPE.accumulated(batch_size)


def test_too_few_images_for_a_step_are_refused(folder, on):
    on(0, 1)
    loader = loader_of(folder, 4)
    loader.dataset.get_subset_([0, 1, 2])
    few = loader_of(folder, 4, dataset=loader.dataset)
    message = 'has 4 processes of 2 images, 8 in a step, and the data set has 3: set .*sampler.processes'
    with pytest.raises(ValueError, match=message):
        place_draws(few, 1)


@pytest.mark.parametrize('given', [dict(processes=4), dict(batch_size=2), dict(processes=0, batch_size=0)])
def test_half_a_recipe_is_refused(given):
    with pytest.raises(ValueError, match='must both be positive, or both None'):
        RepeatedAugmentSampler(range(8), **given)


def test_without_a_training_the_batch_is_one_part():
    torch.manual_seed(0)
    expected = torch.rand(5)
    torch.manual_seed(0)
    drawn = [torch.rand(5) for _ in parts(8, 'anything')]
    assert [part for part in parts(8, 'anything')] == [slice(0, 8)]
    assert torch.equal(*drawn, expected)


def test_a_batch_of_more_images_than_the_iteration_has_is_one_part(on):
    """As of a model that sees each image twice."""
    set_iteration(RECIPE.at(0, 0, 4))
    assert list(parts(3, 'anything')) == [slice(0, 2), slice(2, 3)]
    assert list(parts(8, 'anything')) == [slice(0, 8)]


def run_of(model, folder, batch_size=2, resume=None, **kwargs):
    """20 images in 4 epochs of 2 steps, of 4 processes with 2 images."""
    kwargs.setdefault('optim_wrapper', dict(optimizer=dict(type='SGD', lr=0.1)))
    kwargs.update(
        train_dataloader=dict(
            dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE),
            batch_size=batch_size,
            num_workers=0,
            drop_last=True,
            sampler=dict(type='RepeatedAugmentSampler', processes=4, batch_size=2),
            collate_fn=dict(type='default_collate'),
        ),
        custom_hooks=[dict(type='StepEMAHook', ema_type='ForeachEMA', momentum=0.1)],
        randomness=dict(seed=0),
    )
    if resume is None:
        training(model, folder, **kwargs).train()
    else:
        resumed(model, folder, resume, **kwargs)
    return torch.load(folder / 'epoch_4.pth')


def close(a, b):
    """The average, and the weights."""
    for part in ('state_dict', 'ema_state_dict'):
        for name, value in b[part].items():
            torch.testing.assert_close(a[part][name], value, rtol=1e-5, atol=1e-6)
    assert a['meta']['epoch'] == b['meta']['epoch'] == 4


def test_the_weights_are_the_same_with_any_batch(drawing_model, tmp_path):
    expected = run_of(drawing_model, tmp_path / 'a')
    assert expected['meta']['accumulated'] == 4 and expected['meta']['iter'] == 32
    start = build({**drawing_model, 'teacher': None}).state_dict()
    whole = run_of(drawing_model, tmp_path / 'b', batch_size=8)
    assert whole['meta']['accumulated'] == 1 and whole['meta']['iter'] == 8
    close(whole, expected)
    assert not torch.allclose(start['backbone.cls_token'], whole['state_dict']['backbone.cls_token'])
    # Resumed with another batch, where the training has fewer iterations than were made; and with its own
    # to the bit.
    hooks = dict(filled_model=dict(type='FilledModelHook'), seed=dict(type='SeedHook'), **CHECKPOINT)
    hooks['batch'] = dict(type='GlobalBatchHook', batch_size=8)
    late = run_of(drawing_model, tmp_path / 'e', 8, tmp_path / 'a' / 'epoch_2.pth', default_hooks=hooks)
    close(late, expected)
    close(run_of(drawing_model, tmp_path / 'c', 4, tmp_path / 'a' / 'epoch_2.pth'), expected)
    run_of(drawing_model, tmp_path / 'd', 2, tmp_path / 'a' / 'epoch_2.pth')
    assert same(tmp_path / 'a' / 'epoch_4.pth', tmp_path / 'd' / 'epoch_4.pth')


def test_an_epoch_that_was_interrupted_begins_anew(drawing_model, tmp_path):
    """mmengine keeps its iterations, and would count steps from amid the epoch."""
    expected = run_of(drawing_model, tmp_path / 'a')
    path = tmp_path / 'a' / 'epoch_2.pth'
    checkpoint = torch.load(path)
    checkpoint['meta']['iter'] += 1
    torch.save(checkpoint, path)
    close(run_of(drawing_model, tmp_path / 'b', 4, path), expected)
    (log,) = (tmp_path / 'b').glob('*/*.log')
    assert 'is of iteration 17, and 2 epochs have 8 here: the epoch 3 begins anew' in log.read_text()


def by_iteration(done, before, count):
    """Where a training by iterations goes on, and its schedule."""
    scheduler = SimpleNamespace(by_epoch=False)
    runner = SimpleNamespace(
        train_loop=None,
        optim_wrapper=SimpleNamespace(_accumulative_counts=count),
        param_schedulers=[scheduler, SimpleNamespace(by_epoch=True)],
    )
    states = [dict(last_step=done, _global_step=done + 1), dict(last_step=2, _global_step=3)]
    checkpoint = dict(meta=dict(iter=done, epoch=0, accumulated=before), param_schedulers=states)
    fit_place(checkpoint, runner)
    return checkpoint['meta']['iter'], states


def test_iterations_are_counted_anew_with_another_batch():
    assert by_iteration(12, 4, 1) == (
        3,
        [dict(last_step=3, _global_step=4), dict(last_step=2, _global_step=3)],
    )
    assert by_iteration(3, 1, 4)[0] == 12
    assert by_iteration(13, 4, 4) == (
        13,
        [dict(last_step=13, _global_step=14), dict(last_step=2, _global_step=3)],
    )
    with pytest.raises(ValueError, match='after 13 iterations, of which 4 make a step'):
        by_iteration(13, 4, 1)


def test_weights_of_a_checkpoint_amid_a_step_serve_to_start_from(drawing_model, tmp_path):
    run_of(drawing_model, tmp_path / 'a')
    path = tmp_path / 'a' / 'epoch_2.pth'
    checkpoint = torch.load(path)
    checkpoint['meta']['iter'] += 1
    torch.save(checkpoint, path)
    assert run_of(drawing_model, tmp_path / 'b', 4, load_from=str(path))['meta']['iter'] == 16


def test_a_batch_that_is_larger_than_the_rate_is_meant_for_is_told(tmp_path):
    hooks = dict(batch=dict(type='GlobalBatchHook', batch_size=2), seed=dict(type='SeedHook'))
    run_of(distilled(teacher=None, mode='none'), tmp_path / 'a', default_hooks=hooks | CHECKPOINT)
    (log,) = (tmp_path / 'a').glob('*/*.log')
    assert 'set `train_dataloader.sampler.processes=1` to keep both' in log.read_text()


def test_nothing_accumulates_without_its_hook(tmp_path):
    hooks = dict(setup=dict(type='SetupHook'), seed=dict(type='SeedHook'))
    message = "whose batches nothing accumulates: set .*type='GlobalBatchHook', batch_size=8"
    with pytest.raises(ValueError, match=message):
        run_of(distilled(teacher=None, mode='none'), tmp_path / 'a', default_hooks=hooks)


def test_after_a_training_that_failed_nothing_is_drawn_by_its_place(on):
    set_iteration(RECIPE.at(0, 0, 8))
    SeedHook().before_run(None)
    assert current_iteration() is None


def test_each_call_in_an_iteration_draws_something_else(on):
    model = build(dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, drop_path_rate=0.5)).train()
    images = torch.rand(8, 3, 32, 32)
    set_iteration(RECIPE.at(0, 0, 8))
    first, second = model(images)[0], model(images)[0]
    assert not torch.equal(first, second)
    set_iteration(RECIPE.at(0, 0, 8))
    assert torch.equal(model(images)[0], first)
    # So does a layer on its own.
    set_iteration(None)
    layer, tokens = model.layers[2], torch.rand(8, 5, 32)
    assert len({layer(tokens).sum().item() for _ in range(20)}) > 1


def test_recomputed_layers_keep_the_paths_of_their_call():
    """Also where the model is called again before the backward pass."""
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        cfg = dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, drop_path_rate=0.5, with_cp=with_cp)
        model = build(cfg).train()
        images = torch.rand(2, 8, 3, 32, 32)
        sum(model(view)[0].square().sum() for view in images).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain)


def test_ones_own_accumulation_is_refused(tmp_path):
    optim = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    message = re.escape('here 4 batches of 2 are accumulated, and `optim_wrapper.accumulative_counts` is 3')
    with pytest.raises(ValueError, match=message):
        run_of(distilled(teacher=None, mode='none'), tmp_path / 'a', optim_wrapper=optim)
