"""Checkpoints that a kill at any moment leaves whole."""

import os
import os.path as osp

import pytest
import torch
from conftest import make_runner
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS
from trainings import unique_name

from deit_plugin.checkpoints.atomic import PARTIAL, AtomicLocalBackend

pytestmark = pytest.mark.usefixtures('quick')
SCORES = 1.0, 3.0, 2.0


def runner_of(folder, scores=(1.0, 3.0, 2.0, 4.0), **kwargs):
    return make_runner(dict(type='Weights'), folder, scores=scores, experiment_name=unique_name(), **kwargs)


def checkpoints(folder):
    return sorted(f for f in os.listdir(folder) if '.pth' in f)


def test_keeps_the_last_and_the_best(tmp_path):
    runner_of(tmp_path).train()
    assert checkpoints(tmp_path) == ['best_accuracy_top1_epoch_4.pth', 'epoch_4.pth']
    last = (tmp_path / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'epoch_4.pth')
    (log,) = tmp_path.glob('*/*.log')
    assert (
        'Training is done: best accuracy/top1 4.00, kept in '
        f'{tmp_path}/best_accuracy_top1_epoch_4.pth' in log.read_text()
    )


def test_several_best_metrics(tmp_path):
    hook = dict(
        type='AtomicCheckpointHook',
        save_best=['accuracy/top1', 'accuracy/top1 '],
        rule=['greater', 'less'],
    )

    evaluator = dict(type='Scripted', values=(1.0, 3.0, 2.0, 4.0), keys=('accuracy/top1', 'accuracy/top1 '))
    runner_of(tmp_path, val_evaluator=evaluator, default_hooks=dict(checkpoint=hook)).train()
    assert [f for f in checkpoints(tmp_path) if f.startswith('best')] == [
        'best_accuracy_top1 _epoch_1.pth',
        'best_accuracy_top1_epoch_4.pth',
    ]


def test_in_a_folder_of_its_own(tmp_path):
    """Where mmengine adds the name of the run; the pointer stays with the run."""
    run = tmp_path / 'run'
    run.mkdir()
    hook = dict(type='AtomicCheckpointHook', out_dir=str(tmp_path / 'kept'), max_keep_ckpts=1)
    for part in (f'epoch_9.pth.a1b2_3d4{PARTIAL}', f'last_checkpoint.abcdefgh{PARTIAL}'):
        (tmp_path / 'kept' / 'run').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'kept' / 'run' / part).write_bytes(b'half')
    runner_of(run, default_hooks=dict(checkpoint=hook)).train()
    assert sorted(os.listdir(tmp_path / 'kept' / 'run')) == [
        '.training.json',
        '.training.lock',
        'epoch_4.pth',
    ]
    assert checkpoints(run) == []
    last = (run / 'last_checkpoint').read_text()
    assert last == str(tmp_path / 'kept' / 'run' / 'epoch_4.pth')


@METRICS.register_module()
class ByStep(BaseMetric):
    """What the weights are worth depends on the steps that made them."""

    def process(self, data_batch, data_samples):
        self.results.append(data_samples[0]['steps'])

    def compute_metrics(self, results):
        return {'accuracy/top1': SCORES[results[0] // 2 - 1]}


def three_epochs(folder, **kwargs):
    return runner_of(folder, scores=SCORES, val_evaluator=dict(type='ByStep'), **kwargs)


WRITES = 49  # of three epochs, one of which is not the best


class Killed(BaseException):
    """A SIGKILL at one write to the disk: nothing after it is done."""


def kill_at(patch, folder, write):
    """Of the calls that change a file in a folder all from this one on are not made."""
    count = 0

    def killer(original, folder_of):
        def call(target, *args, **kwargs):
            nonlocal count
            if folder_of(target) == str(folder):
                count += 1
                if count >= write:  # a dead process writes nothing more
                    raise Killed
            return original(target, *args, **kwargs)

        return call

    for name in ('replace', 'remove', 'unlink'):
        patch.setattr(os, name, killer(getattr(os, name), lambda path: osp.dirname(str(path))))
    patch.setattr(os, 'fsync', killer(os.fsync, lambda handle: str(folder)))


def told_by(path):
    """The best checkpoint, and what it reached, that a checkpoint tells of."""
    info = torch.load(path)['message_hub']['runtime_info']
    return info.get('best_score'), info.get('best_ckpt')


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """The weights after three epochs."""
    folder = tmp_path_factory.mktemp('uninterrupted')
    three_epochs(folder).train()
    assert checkpoints(folder) == ['best_accuracy_top1_epoch_2.pth', 'epoch_3.pth']
    return torch.load(folder / 'epoch_3.pth')['state_dict']


@pytest.mark.parametrize('write', range(1, WRITES + 2))
def test_a_kill_at_any_write_leaves_what_was_saved(uninterrupted, tmp_path, monkeypatch, write):
    """At each call that changes a file, in turn. What is resumed ends as if there had been no kill."""
    with monkeypatch.context() as patch:
        kill_at(patch, tmp_path, write)
        try:
            three_epochs(tmp_path).train()
            done = True
        except Killed:
            done = False
    assert done == (write > WRITES)  # so the test covers all of them
    whole = [f for f in checkpoints(tmp_path) if f.endswith('.pth')]
    for name in whole:
        assert name.endswith(f'epoch_{torch.load(tmp_path / name)["meta"]["epoch"]}.pth')
    pointer = tmp_path / 'last_checkpoint'
    if pointer.exists():
        last = pointer.read_text()
        assert osp.dirname(last) == str(tmp_path) and osp.basename(last) in whole
        score, best = told_by(last)
        if best is not None:
            assert best == str(tmp_path / f'best_accuracy_top1_epoch_{SCORES.index(score) + 1}.pth')
            assert osp.basename(best) in whole
    else:
        assert write <= 8  # of the list, of the first checkpoint and of the pointer

    three_epochs(tmp_path, resume=True).train()
    assert not list(tmp_path.glob(f'*{PARTIAL}'))
    assert pointer.read_text() == str(tmp_path / 'epoch_3.pth')
    assert told_by(tmp_path / 'epoch_3.pth') == (3.0, str(tmp_path / 'best_accuracy_top1_epoch_2.pth'))
    resumed = torch.load(tmp_path / 'epoch_3.pth')['state_dict']
    assert torch.equal(resumed['numbers'], uninterrupted['numbers'])
    best = torch.load(tmp_path / 'best_accuracy_top1_epoch_2.pth')
    assert best['meta']['epoch'] == 2 and best['state_dict']['steps'] == 4
    # An old one that the kill came before the removal of is not known any more.
    assert len(checkpoints(tmp_path)) <= 3


@pytest.mark.parametrize('run', ['run', 'run[1]*'])
def test_what_a_killed_write_left_is_removed(tmp_path, run):
    """Whatever the folder is called; and nothing else."""
    folder, other = tmp_path / run, tmp_path / 'run1'
    for path in (folder, other):
        path.mkdir()
    for path in (folder / f'epoch_9.pth.k3x_q012{PARTIAL}', other / f'a.12345678{PARTIAL}'):
        path.write_bytes(b'half')
    others = {'mine.part', 'epoch_9.pth.k3x_q012.part', 'best_of_others.pth', 'epoch_0.pth'}
    for name in others:
        (folder / name).touch()
    runner_of(folder, scores=(1.0,)).train()
    left = set(os.listdir(folder))
    assert others < left and not [name for name in left if name.endswith(PARTIAL)]
    assert len(os.listdir(other)) == 1


def test_each_write_has_a_name_of_its_own(tmp_path, monkeypatch):
    """So that two runs in a folder do not write into one another's file."""
    names, fsync = [], os.fsync

    def note(handle):
        names.append(sorted(f for f in os.listdir(tmp_path) if f.endswith(PARTIAL)))
        fsync(handle)

    monkeypatch.setattr(os, 'fsync', note)
    for _ in range(2):
        AtomicLocalBackend().put(b'content', tmp_path / 'epoch_1.pth')
    ((first,), (second,)) = names
    assert first != second
    assert all(name.startswith('epoch_1.pth.') for name in (first, second))
    assert os.listdir(tmp_path) == ['epoch_1.pth']


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    AtomicLocalBackend().put(b'old', path)

    def full(fd):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match='No room for .*a.pth'):
        AtomicLocalBackend().put(b'new', path)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.pth']


def test_a_new_training_in_the_folder_of_another_replaces_nothing(tmp_path):
    """It is one without `resume`; one that is resumed goes on with its own files."""

    def train(**kwargs):
        weights = dict(type='Weights')
        make_runner(weights, tmp_path, scores=(1.0, 2.0), experiment_name=unique_name(), **kwargs).train()
        return {path.name: path.read_bytes() for path in tmp_path.glob('*.pth')}

    first = train()
    second = train()
    for name, content in first.items():
        assert second[name.replace('.pth', '.earlier1.pth')] == content
    assert second.keys() - first.keys() == {name.replace('.pth', '.earlier1.pth') for name in first}
    assert train(resume=True).keys() == second.keys()
