"""Training stops where the loss is no longer a finite number."""

import os

import pytest
import torch
from conftest import make_runner

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


def test_what_is_logged_is_fetched_at_once():
    """The other hooks then wait for no device."""
    outputs = dict(loss=torch.tensor(1.5, requires_grad=True), acc=torch.tensor([40.0]))
    FiniteLossHook().after_train_iter(None, 0, None, outputs)
    assert outputs == dict(loss=1.5, acc=40.0)
    assert not any(value.requires_grad for value in outputs.values())


@pytest.mark.parametrize('outputs', [None, {}, dict(acc=torch.tensor(float('nan')))])
def test_a_loop_that_trains_nothing_has_no_loss(outputs):
    FiniteLossHook().after_train_iter(None, 0, None, outputs)
    assert not outputs or list(outputs) == ['acc']


@pytest.mark.parametrize('value', ['inf', '-inf', 'nan'])
def test_a_number_of_the_log_may_be_infinite(value):
    """Of the loss alone it is said that training has gone wrong."""
    outputs = dict(loss=torch.tensor(1.0), acc=torch.tensor(float(value)))
    FiniteLossHook().after_train_iter(None, 0, None, outputs)
    assert outputs['loss'] == 1
