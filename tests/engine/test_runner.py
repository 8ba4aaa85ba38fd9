"""The start and the end of a training at a terminal."""

import sys

import pytest
import timm
import torch
from conftest import make_runner
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from trainings import training, unique_name

pytestmark = pytest.mark.usefixtures('quick')
MODEL = dict(type='Weights')
RUNNER = dict(runner_type='mmpretrain.DeiTRunner')


@HOOKS.register_module()
class CtrlC(Hook):
    """Someone presses it in an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if (runner.epoch, batch_idx) == (self.epoch, 2):
            raise KeyboardInterrupt


def interrupted(folder, epoch, monkeypatch, argv):
    monkeypatch.setattr(sys, 'argv', argv)
    runner = training(MODEL, folder / 'run', custom_hooks=[dict(type='CtrlC', epoch=epoch)], **RUNNER)
    with pytest.raises(SystemExit) as stopped:
        runner.train()
    return str(stopped.value)


@pytest.mark.parametrize('package', ['mmpretrain', 'deit_plugin'])
def test_ctrl_c_ends_with_the_command_that_goes_on(tmp_path, monkeypatch, package):
    argv = [f'/x/{package}/.mim/tools/train.py', 'my config.py', '--local-rank=0', '--work-dir', 'run']
    said = interrupted(tmp_path, 2, monkeypatch, argv)
    assert said == (
        f'Interrupted in epoch 3. {tmp_path}/run/epoch_2.pth is kept. To go on: mim train {package} '
        "'my config.py' --work-dir run --resume"
    )


def test_ctrl_c_of_another_program(tmp_path, monkeypatch):
    said = interrupted(tmp_path, 1, monkeypatch, ['mine.py'])
    assert said.endswith('epoch_1.pth is kept. To go on: the same run with `resume=True`')


def test_ctrl_c_before_the_first_checkpoint(tmp_path, monkeypatch):
    assert interrupted(tmp_path, 0, monkeypatch, ['train.py']) == 'Interrupted before the first checkpoint.'


def test_config_and_environment_go_into_the_file_alone(tmp_path, capfd):
    runner = training(MODEL, tmp_path / 'run', **RUNNER)
    said = capfd.readouterr()
    said = said.out + said.err
    assert 'System environment' not in said and 'Hooks will be executed' not in said
    assert f'The log is in {runner.log_dir}, the config in {runner.work_dir}' in said
    (log,) = (tmp_path / 'run').glob('*/*.log')
    log = log.read_text()
    assert 'System environment' in log and 'Hooks will be executed' in log


def test_a_hook_is_left_out_by_none(tmp_path):
    hooks = dict(setup=dict(type='SetupHook'), curves=None, checkpoint=None)
    runner = make_runner(MODEL, tmp_path, default_hooks=hooks, experiment_name=unique_name(), **RUNNER)
    names = [type(hook).__name__ for hook in runner.hooks]
    assert 'SetupHook' in names and 'CurvesHook' not in names and 'CheckpointHook' not in names


def test_no_pinned_memory_without_a_device_and_no_persistence_without_workers(tmp_path, recwarn):
    loader = dict(
        dataset=dict(type='Noise'),
        batch_size=2,
        pin_memory=True,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    runner = make_runner(MODEL, tmp_path, train_dataloader=loader, experiment_name=unique_name(), **RUNNER)
    runner.train()
    assert not [w for w in recwarn if 'pin' in str(w.message)]


def rates_after(folder, scale, **kwargs):
    optimizer = dict(optimizer=dict(type='AdamW', lr=0.8))
    runner = make_runner(
        MODEL,
        folder,
        scores=(1.0,),
        optim_wrapper=optimizer,
        auto_scale_lr=scale,
        experiment_name=unique_name(),
        **RUNNER,
        **kwargs,
    )
    runner.train()
    return {group['lr'] for group in runner.optim_wrapper.param_groups}


def test_auto_scale_lr(tmp_path):
    """By the batch of 2 of the batch that is named; once only."""
    assert rates_after(tmp_path, dict(enable=False)) == {0.8}
    assert rates_after(tmp_path, dict(enable=True, base_batch_size=8)) == {0.2}
    hooks = dict(batch=dict(type='GlobalBatchHook', batch_size=4))
    assert rates_after(tmp_path, dict(enable=True, base_batch_size=8), default_hooks=hooks) == {0.8}
    with pytest.raises(ValueError, match='set `auto_scale_lr.base_batch_size`'):
        rates_after(tmp_path, dict(enable=True))


def test_pretrained_weights_of_timm_stay(tmp_path):
    """As those of a teacher for one's own images, which mmengine would draw anew."""
    torch.save(timm.create_model('resnet10t', num_classes=5).state_dict(), tmp_path / 'timm.pth')
    model = dict(type='TimmClassifier', model_name='resnet10t', num_classes=5)
    model['checkpoint_path'] = str(tmp_path / 'timm.pth')
    for kind, kept in (('mmpretrain.DeiTRunner', True), ('Runner', False)):
        (tmp_path / kind).mkdir()
        runner = make_runner(model, tmp_path / kind, runner_type=kind)
        runner._init_model_weights()
        given = torch.load(tmp_path / 'timm.pth')
        same = [torch.equal(value, given[key]) for key, value in runner.model.model.state_dict().items()]
        assert all(same) == kept  # mmengine's own draws them anew
