"""Half a state of a training, or one of another, is refused in words before anything of it is taken."""

import copy
import os

import numpy as np
import pytest
import torch
from conftest import distilled, make_runner
from filelock import FileLock
from test_hostile_files import SCHEDULE
from trainings import unique_name

from deit_plugin.checkpoints.atomic import lock
from deit_plugin.engine import resuming, work_folder
from deit_plugin.engine.resuming import check_resumable

CFG = distilled(teacher=None, mode='none')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint, and a runner that could go on from it."""
    folder = tmp_path_factory.mktemp('trained')
    torch.manual_seed(0)
    make_runner(CFG, folder, scores=(1.0,), **SCHEDULE).train()
    runner = make_runner(CFG, folder, scores=(1.0, 2.0), experiment_name=unique_name(), **SCHEDULE)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    return torch.load(folder / 'epoch_1.pth'), runner


def state(**entries):
    """Other entries of a parameter's state; None takes one out."""

    def change(checkpoint):
        of_one = checkpoint['optimizer']['state'][3]
        for name, value in entries.items():
            of_one[name] = value(of_one[name]) if callable(value) else value
            if value is None:
                del of_one[name]

    return change


def optimizer(change):
    return lambda checkpoint: change(checkpoint['optimizer'])


def group(**entries):
    return optimizer(lambda given: given['param_groups'][0].update(entries))


def hub(part, **entries):
    return lambda checkpoint: checkpoint['message_hub'][part].update(entries)


ODD = {
    'a state without a part': (state(exp_avg_sq=None), 'another kind of state of the parameter 3'),
    'a state of more': (state(more=torch.ones(1)), 'another kind of state of the parameter 3'),
    'states without a part': (
        optimizer(lambda given: [of.pop('exp_avg_sq') for of in given['state'].values()]),
        'has .* of the parameters, not',
    ),
    'no states': (optimizer(lambda given: given['state'].clear()), 'has none of the parameters'),
    'a state of no parameter': (
        optimizer(lambda given: given['state'].update({10**6: given['state'][3]})),
        'a state of 1000000, which is no parameter',
    ),
    'a state of a name': (
        optimizer(lambda given: given['state'].update(a=given['state'][3])),
        "a state of 'a', which is no parameter",
    ),
    'a state of another shape': (state(exp_avg=lambda v: v[:1]), "odd 'exp_avg' of the parameter 3"),
    'a state that is turned': (state(exp_avg=lambda v: v.reshape(1, -1)), "odd 'exp_avg'"),
    'a state that is stretched': (state(exp_avg=lambda v: torch.zeros(1).expand(v.shape)), "odd 'exp_avg'"),
    'a state of integers': (state(exp_avg=lambda v: v.long()), "odd 'exp_avg'"),
    'a state of nan': (state(exp_avg=lambda v: v * float('nan')), "odd 'exp_avg'"),
    'a state too large for single': (state(exp_avg=lambda v: v.double() + 1e300), "odd 'exp_avg'"),
    'squares that are negative': (state(exp_avg_sq=lambda v: v - 1), "odd 'exp_avg_sq'"),
    'a state that is a list': (state(exp_avg=lambda v: v.tolist()), "odd 'exp_avg'"),
    'steps that are negative': (state(step=torch.tensor(-1.0)), "odd 'step'"),
    'steps that are nan': (state(step=float('nan')), "odd 'step'"),
    'steps that are complex': (state(step=torch.tensor(1j)), "odd 'step'"),
    'steps that are many': (state(step=torch.ones(2)), "odd 'step'"),
    'steps that are a word': (state(step='1'), "odd 'step'"),
    'a parameter less': (
        optimizer(lambda given: given['param_groups'][0]['params'].pop()),
        'has other parameters|has not the',
    ),
    'parameters in another order': (
        optimizer(lambda given: given['param_groups'][0]['params'].reverse()),
        'has other parameters',
    ),
    'a group that is a list': (
        optimizer(lambda given: given.update(param_groups=[[1]])),
        'param_groups.0 lacks',
    ),
    'a rate too large for single': (group(lr=1e300), r'lr is 1e\+300'),
    'a rate that is a tensor': (group(lr=torch.tensor([1e-3])), 'lr is tensor'),
    'a rate that is true': (group(lr=True), 'lr is True'),
    'a negative rate': (group(lr=-1.0), 'lr is -1'),
    'logs of another kind': (lambda c: c['message_hub'].update(log_scalars=[1]), 'no logs .*log_scalars'),
    'names of logs that are none': (
        lambda c: c['message_hub']['runtime_info'].update({3: 4}),
        'no logs .*runtime_info',
    ),
    'marks of logs that are words': (hub('resumed_keys', **{'train/loss': 'x'}), 'resumed_keys'),
    'an epoch beyond the end': (lambda c: c['meta'].update(epoch=9), 'its epoch is 9, and the training ends'),
    'an epoch that is true': (lambda c: c['meta'].update(epoch=True), 'its epoch is True'),
    'no optimizer': (lambda c: c.pop('optimizer'), 'no optimizer, as the best checkpoint'),
    'a schedule less': (lambda c: c['param_schedulers'].pop(), 'param_schedulers are not the'),
    'a schedule of nan': (
        lambda c: c['param_schedulers'][0].update(last_step=float('nan')),
        'param_schedulers.0.last_step is nan',
    ),
}


@pytest.mark.parametrize('kind', ODD)
def test_an_odd_state_is_refused(kind, trained):
    checkpoint, runner = trained
    change, reason = ODD[kind]
    changed = copy.deepcopy(checkpoint)
    change(changed)
    with pytest.raises(ValueError, match=f'cannot be resumed: .*{reason}.*without --resume'):
        check_resumable(changed, runner, runner.model)


SOUND = {
    'as it is': lambda c: None,
    'steps as older torch has them': lambda c: [
        s.update(step=int(s['step'])) for s in c['optimizer']['state'].values()
    ],
    'a best score of numpy': hub('runtime_info', best_score=np.float32(1)),
    'a rate of numpy': group(lr=np.float64(1e-3)),
}


@pytest.mark.parametrize('kind', SOUND)
def test_a_sound_state_is_taken(kind, trained):
    checkpoint, runner = trained
    changed = copy.deepcopy(checkpoint)
    SOUND[kind](changed)
    check_resumable(changed, runner, runner.model)


def test_what_an_optimizer_and_a_schedule_are_is_the_configs(trained):
    """Also what a file says that a run of here does not even have."""
    checkpoint, runner = trained
    changed = copy.deepcopy(checkpoint)
    changed['optimizer']['param_groups'][0].update(betas=(2, 'x'), maximize=True)
    changed['optimizer']['base_param_settings'] = 'x'
    changed['param_schedulers'][0].update(step=3, _get_value='x')
    check_resumable(changed, runner, runner.model)
    own = runner.optim_wrapper.state_dict()
    for name in ('betas', 'maximize'):
        assert changed['optimizer']['param_groups'][0][name] == own['param_groups'][0][name]
    assert 'base_param_settings' not in changed['optimizer']
    assert not {'step', '_get_value'} & changed['param_schedulers'][0].keys()


# --- the folder -----------------------------------------------------------


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: os.symlink('/dev/zero', path)])
def test_a_pointer_that_is_no_file_is_told(make, tmp_path, quick, in_time):
    """Of a pipe the training would wait for ever."""
    make(tmp_path / 'last_checkpoint')
    runner = make_runner(CFG, tmp_path, (1.0,), resume=True)
    with pytest.raises(ValueError, match='last_checkpoint is not a file. Remove it'):
        runner.train()


@pytest.mark.parametrize(
    'named, expected', [('/gone/epoch_1.pth', 'epoch_1.pth'), ('/gone/epoch_2.pth', None)]
)
def test_a_pointer_of_a_moved_folder_names_what_came_along(named, expected, tmp_path):
    (tmp_path / 'epoch_1.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(named)
    work_folder.WorkFolder(str(tmp_path)).mend_pointer()
    found = (tmp_path / 'last_checkpoint').read_text()
    assert found == (str(tmp_path / expected) if expected else named)


def run(folder, out, **kwargs):
    folder.mkdir(exist_ok=True)
    hook = dict(type='AtomicCheckpointHook', out_dir=str(out), max_keep_ckpts=1, save_best='auto')
    hooks = dict(checkpoint=hook)
    make_runner(CFG, folder, (1.0,), experiment_name=unique_name(), default_hooks=hooks, **kwargs).train()


def test_a_second_training_into_a_folder_of_checkpoints_is_refused(tmp_path, monkeypatch, quick):
    """Two runs of one name in two places, with one `out_dir`."""
    monkeypatch.setattr(work_folder, 'PATIENCE', 0.1)
    (tmp_path / 'out' / 'run').mkdir(parents=True)
    held = FileLock(tmp_path / 'out' / 'run' / '.training.lock')
    with held, pytest.raises(RuntimeError, match='Another training runs in .*out/run: wait for its end'):
        run(tmp_path / 'run', tmp_path / 'out')
    assert list((tmp_path / 'out').rglob('*.pth')) == []


def test_files_of_an_earlier_run_are_kept_aside(tmp_path, quick):
    out = tmp_path / 'out' / 'run'
    out.mkdir(parents=True)
    names = ['epoch_1.pth', 'best_accuracy_top1_epoch_1.pth', 'epoch_1.earlier1.pth']
    for name in names:
        (out / name).write_text(name)
    run(tmp_path / 'run', tmp_path / 'out')
    assert (out / 'epoch_1.earlier2.pth').read_text() == 'epoch_1.pth'
    assert (out / 'epoch_1.earlier1.pth').read_text() == 'epoch_1.earlier1.pth'
    assert (out / 'best_accuracy_top1_epoch_1.earlier1.pth').read_text() == names[1]
    for name in names[:2]:
        assert torch.load(out / name)['meta']['epoch'] == 1


def test_a_lock_that_is_a_link_is_told(tmp_path):
    """Opened, it would empty what it leads to."""
    (tmp_path / 'precious').write_text('precious')
    (tmp_path / '.training.lock').symlink_to('precious')
    with pytest.raises(OSError, match='The lock is a link: remove it'):
        lock(str(tmp_path / '.training.lock'))
    assert (tmp_path / 'precious').read_text() == 'precious'


def test_a_parameter_without_a_state_is_told(trained, monkeypatch):
    """It may be one that never had a gradient."""
    checkpoint, runner = copy.deepcopy(trained[0]), trained[1]
    said = []
    monkeypatch.setattr(resuming, 'print_log', lambda message, *args: said.append(message))
    check_resumable(checkpoint, runner, runner.model)
    assert not said
    del checkpoint['optimizer']['state'][3]
    check_resumable(checkpoint, runner, runner.model)
    number = len(list(runner.model.parameters()))
    assert said == [f'The optimizer has no state of 1 of {number} parameters: it starts anew']
