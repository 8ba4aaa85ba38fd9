"""The whole way of a user: `mim train`, a kill, `--resume`, `mim test`."""

import os
import os.path as osp
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIG = osp.join(ROOT, 'configs', 'deit_digits_distilled.py')
# A small part of the demo: three epochs of six iterations.
SHORT = [
    'train_dataloader.dataset.indices=384',
    'train_cfg.max_epochs=3',
    'param_scheduler.0.end=1',
    'param_scheduler.1.begin=1',
    'default_hooks.logger.interval=1',
]


def mim(*args, folder, wait=True, options=()):
    """Run mim in a folder that is not the repository's."""
    command = [
        osp.join(osp.dirname(sys.executable), 'mim'),
        *args,
        '--cfg-options',
        *SHORT,
        *options,
    ]
    process = subprocess.Popen(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    if not wait:
        return process
    output, _ = process.communicate()
    return process.returncode, output


def train(folder, *args, run='run', **kwargs):
    return mim('train', 'mmpretrain', CONFIG, '--work-dir', run, *args, folder=folder, **kwargs)


def evaluate(folder, checkpoint, **kwargs):
    return mim(
        'test',
        'mmpretrain',
        CONFIG,
        '--checkpoint',
        checkpoint,
        '--work-dir',
        'test',
        folder=folder,
        **kwargs,
    )


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """A run killed in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp('killed')
    process = train(folder, wait=False)
    output = ''
    for line in process.stdout:
        output += line
        if 'Epoch(train) [2][3/6]' in re.sub(' +', ' ', line):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 'Epoch(train)' in output, output
    return folder, output


def test_log_shows_progress_and_the_teacher(killed):
    line = killed[1].splitlines()[-1]
    for part in (
        'eta: 0:',
        'loss: ',
        'loss_cls: ',
        'loss_distill: ',
        'teacher_acc: ',
        'teacher_agreement: ',
    ):
        assert part in line


def test_a_kill_damages_nothing(killed):
    run = killed[0] / 'run'
    names = [f for f in os.listdir(run) if f.endswith('.pth')]
    assert 'epoch_1.pth' in names
    for name in names:
        assert torch.load(run / name)['meta']['epoch'] == 1
    student = torch.load(run / 'epoch_1.pth')['state_dict']
    assert all(k.startswith(('backbone.', 'head.')) for k in student)


@pytest.fixture(scope='module')
def resumed(killed, tmp_path_factory):
    folder = tmp_path_factory.mktemp('resumed')
    shutil.copytree(killed[0], folder, dirs_exist_ok=True)
    pointer = folder / 'run' / 'last_checkpoint'
    pointer.write_text(pointer.read_text().replace(str(killed[0]), str(folder)))
    code, output = train(folder, '--resume')
    assert code == 0, output[-4000:]
    return folder, output


def test_resume(resumed):
    folder, output = resumed
    assert 'resumed epoch: 1, iter: 6' in output
    assert '[2][1/6]' in output and '[1][1/6]' not in output
    reached = re.search(r'Training is done: best accuracy/top1 [\d.]+, kept in (\S+)', output)
    assert osp.exists(folder / reached[1])
    assert torch.load(folder / 'run' / 'epoch_3.pth')['meta']['iter'] == 18


def test_a_second_run_asks_no_teacher(resumed):
    """And ends, without a kill, where the first one did."""
    folder, _ = resumed
    code, output = train(
        folder, run='again', options=['model.teacher.checkpoint=nowhere/deit_digits_teacher.pth']
    )
    assert code == 0, output[-4000:]
    assert '18 of 18 iterations of this process are recorded' in output
    assert 'are not at hand' in output
    first, second = (torch.load(folder / run / 'epoch_3.pth')['state_dict'] for run in ('run', 'again'))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_evaluation_gives_what_training_reported(resumed):
    folder, output = resumed
    checkpoint = str(folder / 'run' / 'epoch_3.pth')
    # Without the teacher's weights, too.
    code, tested = evaluate(folder, checkpoint, options=['model.teacher.checkpoint=nowhere.pth'])
    assert code == 0, tested[-4000:]
    expected = re.findall(r'Epoch\(val\) +\[3\].*top1: ([\d.]+)', output)
    assert re.findall(r'accuracy/top1: ([\d.]+)', tested) == expected


def test_readings_from_the_command_line(resumed):
    folder, _ = resumed
    code, output = evaluate(
        folder, str(folder / 'run' / 'epoch_3.pth'), options=['model.head.prediction=cls']
    )
    assert code == 0 and 'accuracy/top1' in output
    assert "prediction='cls'" in output


def change(source, target, edit):
    checkpoint = torch.load(source)
    edit(checkpoint)
    torch.save(checkpoint, target)


class Evil:
    def __reduce__(self):
        return os.system, ('touch was_run',)


@pytest.mark.parametrize(
    'spoil, options, message',
    [
        (
            lambda s, t: t.write_bytes(s.read_bytes()[:5000]),
            [],
            r'wrong.pth cannot be read, it is damaged.*5000 bytes',
        ),
        (
            lambda s, t: change(s, t, lambda c: c.update(meta=Evil())),
            [],
            r'wrong.pth is refused, nothing in it was run',
        ),
        (lambda s, t: None, [], r"There is no checkpoint 'wrong.pth'"),
        (
            shutil.copy,
            ['model.backbone.arch.embed_dims=48'],
            r'not of this DeiT .4 layers, width 48.',
        ),
        (shutil.copy, ['model.backbone.arch=huge'], r"arch='huge' is unknown"),
        (shutil.copy, ['model.head.loss.mode=medium'], r"mode='medium' is unknown"),
        (shutil.copy, ['model.head.num_classes=7'], r'student has 7 classes and the teacher 10'),
    ],
)
def test_what_goes_wrong_is_said(killed, tmp_path, spoil, options, message):
    """In one process, not by mim, for the time that its start takes."""
    spoil(killed[0] / 'run' / 'epoch_1.pth', tmp_path / 'wrong.pth')
    result = subprocess.run(
        [
            sys.executable,
            '-c',
            TEST_SCRIPT,
            CONFIG,
            'wrong.pth',
            '--work-dir',
            'test',
            '--cfg-options',
            *SHORT,
            *options,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert re.search(message, result.stderr), result.stderr[-3000:]
    assert not (tmp_path / 'was_run').exists()


# What mim runs.
TEST_SCRIPT = """
import os.path as osp, runpy, mmpretrain
runpy.run_path(osp.join(osp.dirname(mmpretrain.__file__), '.mim', 'tools',
                        'test.py'), run_name='__main__')
"""
