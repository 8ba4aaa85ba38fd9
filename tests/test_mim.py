"""The whole way of a user: `mim train`, a kill, `--resume`, `mim test`.

Once each by mim itself (slow); all else by the scripts that mim runs, in this process, since the start of
another one takes longest.
"""

import io
import os
import os.path as osp
import re
import runpy
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout

import mmpretrain
import pytest
import torch
from trainings import unique_name

pytestmark = pytest.mark.slow
ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
CONFIG = osp.join(ROOT, 'configs', 'deit_digits_distilled.py')
TOOLS = osp.join(osp.dirname(mmpretrain.__file__), '.mim', 'tools')
# A small part of the demo: two epochs of six iterations.
SHORT = [
    'train_dataloader.dataset.indices=384',
    'train_cfg.max_epochs=2',
    'param_scheduler.0.warmup_epochs=1',
    'default_hooks.logger.interval=1',
]
LABELS = 'model.teacher_labels.path=labels'
NO_WORKERS = [
    f'{loader}_dataloader.{option}'
    for loader in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def mim(*args, folder, options=()):
    """Start mim in a folder that is not the repository's, with as many threads as there are here."""
    threads = {name: str(torch.get_num_threads()) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
    return subprocess.Popen(
        [osp.join(osp.dirname(sys.executable), 'mim'), *args, '--cfg-options', *SHORT, *options],
        cwd=folder,
        env={**os.environ, **threads},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def train(folder, *args):
    return mim('train', 'mmpretrain', CONFIG, '--work-dir', 'run', *args, folder=folder)


def end(process):
    """What a process said until its end."""
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
    return output


def script(name, folder, *args, options=()):
    """What the script of a tool of mim's says that is run there."""
    name_of_run = f'experiment_name=_{unique_name()}'
    options = ['--cfg-options', *SHORT, *NO_WORKERS, *options, name_of_run]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as output:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', [name, CONFIG, *args, *options])
        runpy.run_path(osp.join(TOOLS, name), run_name='__main__')
    return output.getvalue()


def accuracies(output, place=''):
    return re.findall(place + r'accuracy/top1: ([\d.]+)', output)


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Steps this small wait for threads more than they compute; mim has as many."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run that nothing interrupts."""
    folder = tmp_path_factory.mktemp('trained')
    return folder, script('train.py', folder, '--work-dir', 'run', options=[LABELS])


def test_log_shows_progress_and_the_teacher(trained):
    (line,) = (line for line in trained[1].splitlines() if 'Epoch(train) [2][3/6]' in re.sub(' +', ' ', line))
    for part in (
        'eta: 0:',
        'loss: ',
        'loss_cls: ',
        'loss_distill: ',
        'teacher_acc: ',
        'teacher_agreement: ',
    ):
        assert part in line


def test_a_second_run_asks_no_teacher(trained):
    """And ends where the first one did."""
    folder, _ = trained
    nowhere = 'model.teacher.checkpoint=nowhere/deit_digits_teacher.pth'
    output = script('train.py', folder, '--work-dir', 'again', options=[nowhere, LABELS])
    assert '2 of 2 epochs are recorded in' in output
    assert 'are not at hand' in output
    assert_same(folder / 'run' / 'epoch_2.pth', folder / 'again' / 'epoch_2.pth')


def assert_same(path, other):
    weights, others = (torch.load(file)['state_dict'] for file in (path, other))
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name


@pytest.mark.parametrize('prediction', ['mean', 'cls', 'dist'])
def test_readings_from_the_command_line(trained, tmp_path, prediction):
    path = str(trained[0] / 'run' / 'epoch_2.pth')
    options = [f'model.head.prediction={prediction}']
    output = script('test.py', tmp_path, path, '--work-dir', 'test', options=options)
    (accuracy,) = accuracies(output)
    (log,) = (tmp_path / 'test').glob('*/*.log')
    assert f"prediction='{prediction}'" in log.read_text()
    if prediction == 'mean':
        assert [accuracy] == accuracies(trained[1], r'Epoch\(val\) +\[2\].*')


def test_with_test_time_augmentation(trained, tmp_path):
    path = str(trained[0] / 'run' / 'epoch_2.pth')
    assert accuracies(script('test.py', tmp_path, path, '--work-dir', 'test', '--tta'))
    (log,) = (tmp_path / 'test').glob('*/*.log')
    assert 'AverageClsScoreTTA' in log.read_text()


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """A run of mim killed in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp('killed')
    process = train(folder)
    output = ''
    for line in process.stdout:
        output += line
        if 'Epoch(train) [2][1/6]' in re.sub(' +', ' ', line):
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 'Epoch(train)' in output, output
    return folder, output


def test_a_kill_damages_nothing(killed):
    run = killed[0] / 'run'
    names = [f for f in os.listdir(run) if f.endswith('.pth')]
    assert 'epoch_1.pth' in names
    for name in names:
        assert torch.load(run / name)['meta']['epoch'] == 1
    student = torch.load(run / 'epoch_1.pth')['state_dict']
    assert all(k.startswith(('backbone.', 'head.')) for k in student)


def test_what_was_killed_is_resumed_and_evaluated(killed, trained, tmp_path):
    """At once, for the time that they take. The evaluation lacks the teacher's weights; the training has
    workers, other than the one without a kill."""
    folder, output = killed
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    pointer = tmp_path / 'run' / 'last_checkpoint'
    pointer.write_text(pointer.read_text().replace(str(folder), str(tmp_path)))
    path = str(folder / 'run' / 'epoch_1.pth')
    evaluate = 'test', 'mmpretrain', CONFIG, '--checkpoint', path, '--work-dir', 'test'
    evaluation = mim(*evaluate, folder=tmp_path, options=['model.teacher.checkpoint=nowhere.pth'])
    resumed = end(train(tmp_path, '--resume'))
    assert 'resumed epoch: 1, iter: 6' in resumed
    assert '[2][1/6]' in resumed and '[1][1/6]' not in resumed
    reached = re.search(r'Training is done: best accuracy/top1 [\d.]+, kept in (\S+)', resumed)
    assert osp.exists(tmp_path / reached[1])
    assert torch.load(tmp_path / 'run' / 'epoch_2.pth')['meta']['iter'] == 12
    assert_same(tmp_path / 'run' / 'epoch_2.pth', trained[0] / 'run' / 'epoch_2.pth')
    assert accuracies(end(evaluation)) == accuracies(output, r'Epoch\(val\) +\[1\].*')


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
        (shutil.copy, ['model.head.num_classes=7'], r'does not fill .*head.layers.head.weight'),
    ],
)
def test_what_goes_wrong_is_said(trained, tmp_path, spoil, options, message):
    spoil(trained[0] / 'run' / 'epoch_2.pth', tmp_path / 'wrong.pth')
    with pytest.raises(Exception, match=message):
        script('test.py', tmp_path, 'wrong.pth', '--work-dir', 'test', options=options)
    assert not (tmp_path / 'was_run').exists()
