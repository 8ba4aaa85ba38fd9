"""What TensorBoard and Weights & Biases are told of a distilled training, as docs/training.md has it."""

import sys
import types

import pytest
from conftest import distilled, teacher_cfg
from trainings import training

pytestmark = pytest.mark.usefixtures('quick')
TOLD = {
    'loss',
    'loss_cls',
    'loss_distill',
    'cls_acc',
    'dist_acc',
    'teacher_acc',
    'teacher_agreement',
    'lr',
    'accuracy/top1',
}


def train(folder, backend):
    hooks = dict(logger=dict(type='LoggerHook', interval=1))
    backends = [dict(type='LocalVisBackend'), dict(type=backend)]
    visualizer = dict(type='UniversalVisualizer', vis_backends=backends, name=folder.name)
    model = distilled(teacher=teacher_cfg())
    training(model, folder / 'run', default_hooks=hooks, scores=(1.0, 2.0), visualizer=visualizer).train()


def test_tensorboard_reads_it_back(tmp_path):
    event_accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    train(tmp_path, 'TensorboardVisBackend')
    (file,) = (tmp_path / 'run').rglob('events.out.tfevents.*')
    events = event_accumulator.EventAccumulator(str(file.parent))
    events.Reload()
    assert TOLD <= set(events.Tags()['scalars'])
    assert [event.step for event in events.Scalars('loss')] == list(range(1, 11))
    assert [event.value for event in events.Scalars('accuracy/top1')] == [1, 2]


def test_weights_and_biases(tmp_path, monkeypatch):
    """By a stand-in, as the service is elsewhere."""
    told = {}
    wandb = types.ModuleType('wandb')
    wandb.init = lambda **kwargs: None
    wandb.log = lambda values, **kwargs: told.update(values)
    wandb.define_metric = lambda *args, **kwargs: None
    wandb.config = types.SimpleNamespace(update=lambda *args, **kwargs: None)
    wandb.run = types.SimpleNamespace(log_code=lambda *args, **kwargs: None)
    wandb.join = lambda: None
    monkeypatch.setitem(sys.modules, 'wandb', wandb)
    train(tmp_path, 'WandbVisBackend')
    assert TOLD <= told.keys()
