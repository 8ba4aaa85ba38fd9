"""What is logged needs no more than the values that are kept."""

import numpy as np
import pytest
import torch
from conftest import make_runner
from mmengine.hooks import Hook
from trainings import stop_workers, unique_name

from deit_plugin.engine.hooks import history

pytestmark = pytest.mark.usefixtures('quick')
MODEL = dict(type='Weights')


class Watch(Hook):
    """What the log would say at each iteration, and how much is kept for it."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.logged, self.lengths = [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        tag, _ = runner.log_processor.get_log_after_iter(runner, batch_idx, 'train')
        self.logged.append({k: v for k, v in tag.items() if 'time' not in k and k != 'memory'})
        for name, buffer in runner.message_hub.log_scalars.items():
            self.lengths[name] = max(len(buffer.data[0]), self.lengths.get(name, 0))

    def after_val_epoch(self, runner, metrics=None):
        tag, _ = runner.log_processor.get_log_after_epoch(runner, 1, 'val')
        self.logged.append({k: v for k, v in tag.items() if 'time' not in k})


def run(folder, bounded, custom=(), resume=False, epochs=4, **kwargs):
    folder.mkdir(exist_ok=True)
    hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1))
    if bounded:
        hooks['history'] = dict(type='HistoryHook')
    loader = dict(
        dataset=dict(type='Dots', ann_file='', pipeline=[dict(type='PackInputs')]),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    watch = Watch()
    runner = make_runner(
        MODEL,
        folder,
        scores=(1.0,) * epochs,
        train_dataloader=loader,
        default_hooks=hooks,
        log_processor=dict(window_size=3, custom_cfg=list(custom)),
        experiment_name=unique_name(),
        resume=resume,
        **kwargs,
    )
    runner.register_hook(watch, priority='LOWEST')
    runner.train()
    stop_workers(runner)
    return watch, runner


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(history, 'KEPT', 4)


CUSTOM = [
    dict(data_src='loss', log_name='mean_of_epoch', method_name='mean', window_size='epoch'),
    dict(data_src='grad_norm', method_name='max', window_size=6),
]
WHOLE = [
    dict(data_src='loss', log_name='mean_of_all', method_name='mean', window_size='global'),
    dict(data_src='lr', log_name='highest', method_name='max'),
]


@pytest.mark.parametrize('custom, kept', [([], 4), (CUSTOM, 5), (WHOLE, 20)])
def test_the_log_is_the_same(tmp_path, custom, kept):
    """And no more is kept than it reads: of 20 iterations in 4 epochs."""
    expected, _ = run(tmp_path / 'without', False, custom)
    given, runner = run(tmp_path / 'with', True, custom)
    assert given.logged == expected.logged and len(given.logged) == 24
    # One more until the next value is added.
    assert expected.lengths['train/loss'] == 20
    assert given.lengths['train/loss'] == kept
    assert given.lengths['train/time'] == 4
    assert given.lengths['train/lr'] == (20 if custom is WHOLE else 4)
    checkpoint = torch.load(tmp_path / 'with' / 'epoch_4.pth')
    assert len(checkpoint['message_hub']['log_scalars']['train/loss'].data[0]) == kept


def test_a_resumed_training_keeps_the_same(tmp_path):
    whole, runner = run(tmp_path / 'whole', True)
    run(tmp_path / 'part', True, epochs=4, train_cfg=dict(by_epoch=True, max_epochs=2))
    part, resumed = run(tmp_path / 'part', True, resume=True)
    assert part.logged == whole.logged[-len(part.logged) :] and part.logged
    for name, buffer in runner.message_hub.log_scalars.items():
        other = resumed.message_hub.log_scalars[name]
        assert other.max_length == buffer.max_length
        if name.startswith('train') and 'time' not in name:
            for a, b in zip(buffer.data, other.data):
                assert np.array_equal(a, b)


def test_a_long_history_of_a_checkpoint_is_cut(tmp_path):
    run(tmp_path, False, train_cfg=dict(by_epoch=True, max_epochs=2))
    watch, runner = run(tmp_path, True, resume=True)
    assert len(runner.message_hub.log_scalars['train/loss'].data[0]) == 4


def test_a_validation_may_run_alone(tmp_path):
    make_runner(MODEL, tmp_path, default_hooks=dict(history=dict(type='HistoryHook'))).val()
