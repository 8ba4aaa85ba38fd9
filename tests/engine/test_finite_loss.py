"""Training stops where the loss is no longer a finite number."""

import json
import os

import pytest
import torch
from conftest import make_runner
from mmengine.hooks import Hook
from trainings import unique_name

from deit_plugin.engine import FiniteLossHook

pytestmark = pytest.mark.usefixtures('quick')


def checkpoints(folder):
    return sorted(f for f in os.listdir(folder) if '.pth' in f)


def poison(runner, iteration, key):
    """Make a part of the loss infinite at an iteration."""
    original = runner.model.loss

    def loss(*args, **kwargs):
        losses = original(*args, **kwargs)
        if runner.iter == iteration:
            losses[key] = losses[key] * float('inf')
        return losses

    runner.model.loss = loss


def test_a_loss_that_is_not_finite_stops_training(distilled_cfg, tmp_path):
    runner = make_runner(distilled_cfg, tmp_path)
    poison(runner, 3, 'loss_distill')
    with pytest.raises(
        FloatingPointError,
        match=r'iteration 4 \(epoch 2\).*loss inf.*loss_cls \d.*'
        r'loss_distill inf',
    ):
        runner.train()
    assert checkpoints(tmp_path) == ['best_accuracy_top1_epoch_1.pth', 'epoch_1.pth']
    for name in checkpoints(tmp_path):
        for value in torch.load(tmp_path / name)['state_dict'].values():
            assert torch.isfinite(value).all()


def test_weights_that_are_not_finite_are_not_saved(distilled_cfg, tmp_path):
    """As after a step in which another process had the infinite loss."""
    runner = make_runner(distilled_cfg, tmp_path)
    runner.model.backbone.cls_token.data.fill_(float('nan'))
    runner.model.init_weights = lambda: None
    (hook,) = (h for h in runner.hooks if type(h).__name__ == 'FiniteLossHook')
    hook.after_train_iter = lambda *args, **kwargs: None
    with pytest.raises(FloatingPointError, match='backbone.* is not finite'):
        runner.train()
    assert checkpoints(tmp_path) == []


def test_a_moving_average_that_is_not_finite_is_not_saved(distilled_cfg, tmp_path):
    runner = make_runner(distilled_cfg, tmp_path, custom_hooks=[dict(type='EMAHook')])
    runner.call_hook('before_run')
    (ema,) = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    ema.ema_model.module.head.layers.head.bias.data.fill_(float('nan'))
    ema.ema_model.steps += 1  # at the first it is a copy
    ema.before_run = lambda runner: None
    with pytest.raises(FloatingPointError, match='the average module.head.layers.head.bias is not finite'):
        runner.train()
    assert checkpoints(tmp_path) == []


@pytest.mark.parametrize('outputs', [None, {}, dict(acc=torch.tensor(float('nan')))])
def test_a_loop_that_trains_nothing_has_no_loss(outputs):
    FiniteLossHook().after_train_iter(None, 0, None, outputs)
    assert not outputs or list(outputs) == ['acc']


class Watch(Hook):
    """What a user's hook is given, and what the message hub has then."""

    def __init__(self):
        self.outputs, self.known, self.with_gradient = [], [], False

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.with_gradient |= any(value.requires_grad for value in outputs.values())
        self.outputs.append({name: value.item() for name, value in outputs.items()})
        self.known.append(runner.message_hub.get_scalar('train/loss').current())


def long(model, folder, watch=None, hook=True, **kwargs):
    """A runner of two epochs of seven iterations, of which every third is logged."""
    loader = dict(
        dataset=dict(type='Noise', size=14),
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    hooks = dict(
        checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=-1),
        logger=dict(type='LoggerHook', interval=3),
    )
    hooks.update(finite_loss=dict(type='FiniteLossHook'))
    hooks.update(kwargs.pop('default_hooks', {}))
    if not hook:
        del hooks['finite_loss']
    kwargs = {'scores': (1.0, 2.0), 'randomness': dict(seed=0), 'experiment_name': unique_name(), **kwargs}
    runner = make_runner(model, folder, train_dataloader=loader, default_hooks=hooks, **kwargs)
    if watch is not None:
        runner.register_hook(watch)
    return runner


BY_ITERATION = dict(
    train_cfg=dict(by_epoch=False, max_iters=12, val_interval=5),
    default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=4)),
    log_processor=dict(by_epoch=False),
)


def test_a_loss_is_looked_at_one_iteration_late(distilled_cfg, tmp_path):
    """Unless something reads it: the first one, of new names; every third, which is logged; the last one."""
    watch = Watch()
    long(distilled_cfg, tmp_path, watch).train()
    losses = [values['loss'] for values in watch.outputs]
    assert len(set(losses)) == 14 and not watch.with_gradient
    for i, known in enumerate(watch.known):
        at_once = i == 0 or i % 7 in (2, 5, 6)
        assert known == losses[i if at_once else i - 1]


@pytest.mark.parametrize('poisoned, stops', [(0, 0), (1, 2), (2, 2), (3, 4), (6, 6), (7, 8), (13, 13)])
def test_training_stops_in_the_next_iteration(distilled_cfg, tmp_path, poisoned, stops):
    runner = long(distilled_cfg, tmp_path)
    poison(runner, poisoned, 'loss_cls')
    with pytest.raises(FloatingPointError, match=rf'iteration {poisoned + 1} \(epoch {1 + poisoned // 7}\)'):
        runner.train()
    assert runner.iter == stops
    assert not any('epoch_2' in name for name in checkpoints(tmp_path))


@pytest.mark.parametrize('poisoned, saved', [(3, []), (4, ['iter_4.pth']), (6, ['iter_4.pth'])])
def test_nothing_is_saved_or_validated_after_it_by_iteration(distilled_cfg, tmp_path, poisoned, saved):
    """At 4 iterations a checkpoint is saved, at 5 the model is validated, at 8 a checkpoint is due."""
    runner = long(distilled_cfg, tmp_path, **BY_ITERATION)
    poison(runner, poisoned, 'loss_cls')
    with pytest.raises(FloatingPointError, match=f'iteration {poisoned + 1} '):
        runner.train()
    assert [name for name in checkpoints(tmp_path) if 'best' not in name] == saved
    assert (runner.message_hub.log_scalars.get('val/accuracy/top1') is not None) == (poisoned > 4)


def recorded(folder):
    """What is in the checkpoints and in the log, without times, in its order."""
    histories = {}
    for name in checkpoints(folder):
        scalars = torch.load(folder / name)['message_hub']['log_scalars']
        histories[name] = [(k, list(v.data[0]) * ('time' not in k)) for k, v in scalars.items()]
    (log,) = folder.rglob('scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return histories, [[(k, v) for k, v in line.items() if 'time' not in k] for line in lines]


HOW = [
    {},
    BY_ITERATION,
    dict(custom_hooks=[dict(type='EMAHook')]),
    dict(default_hooks=dict(finite_loss=dict(type='FiniteLossHook', priority='LOW'))),
]


@pytest.mark.parametrize('how', HOW)
def test_all_that_is_recorded_is_what_mmengine_records(distilled_cfg, tmp_path, how):
    (tmp_path / 'mmengine').mkdir()
    (tmp_path / 'ours').mkdir()
    peer, watch = Watch(), Watch()
    long(distilled_cfg, tmp_path / 'mmengine', peer, hook=False, **how).train()
    long(distilled_cfg, tmp_path / 'ours', watch, **how).train()
    assert watch.outputs == peer.outputs
    expected, given = recorded(tmp_path / 'mmengine'), recorded(tmp_path / 'ours')
    assert len(expected[0]) >= 2 and len(expected[1]) >= 5
    assert given == expected


def test_a_loop_that_is_stopped_records_its_last_iteration(distilled_cfg, tmp_path):
    class Stop(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.train_loop.stop_training = runner.iter == 10

    runner = long(distilled_cfg, tmp_path, Stop(), **BY_ITERATION)
    runner.train()
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == runner.iter == 11


@pytest.mark.parametrize('poisoned', [1, 2])
def test_a_number_of_the_log_may_be_infinite(distilled_cfg, tmp_path, poisoned):
    """Of the loss alone it is said that training has gone wrong."""
    runner = long(distilled_cfg, tmp_path, scores=(1.0,))
    poison(runner, poisoned, 'cls_acc')
    runner.train()
    history = runner.message_hub.get_scalar('train/cls_acc').data[0]
    assert len(history) == 7 and [i for i, v in enumerate(history) if not abs(v) < 1e9] == [poisoned]
