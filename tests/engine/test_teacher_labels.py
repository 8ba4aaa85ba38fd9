"""A teacher that is paid for once: recorded, then replayed."""

import copy
import json
import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from conftest import build, make_batch
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from trainings import PIPELINE, stop_workers, training, unique_name

from deit_plugin.__main__ import main
from deit_plugin.models import DistillationLoss
from deit_plugin.models.teacher import Teacher
from deit_plugin.teacher_cache.store import LabelStore

pytestmark = pytest.mark.usefixtures('quick')


@pytest.fixture
def labels(drawing_model, tmp_path):
    drawing_model['teacher_labels'] = dict(path=str(tmp_path / 'labels'))
    return drawing_model


def run(cfg, folder, seed_hook=True, **kwargs):
    """The losses of a training, and its last weights."""
    hooks = dict(
        checkpoint=dict(type='AtomicCheckpointHook', interval=1),
        logger=dict(type='LoggerHook', interval=1),
        labels=dict(type='TeacherLabelsHook'),
    )
    if seed_hook:
        hooks['seed'] = dict(type='SeedHook')
    runner = training(
        cfg,
        folder,
        **{**dict(randomness=dict(seed=0), default_hooks=hooks), **kwargs},
    )
    runner.train()
    stop_workers(runner)
    lines = next(folder.rglob('scalars.json')).read_text().splitlines()
    losses = [{k: v for k, v in json.loads(line).items() if 'loss' in k or 'teacher' in k} for line in lines]
    return losses, runner.model.state_dict(), runner


def same(one, other):
    assert one[0] == other[0]
    for name, value in one[1].items():
        assert torch.equal(value, other[1][name]), name


def no_teacher(monkeypatch):
    def build(self):
        raise AssertionError('the teacher was built')

    monkeypatch.setattr(Teacher, 'build', build)


@pytest.mark.slow
@pytest.mark.parametrize('topk', [0, 3])
def test_a_replay_is_the_live_run_to_the_bit(topk, labels, tmp_path, monkeypatch):
    labels['head']['loss'] = dict(type='DistillationLoss', mode='soft' if topk else 'hard', tau=2.0)
    labels['teacher_labels']['topk'] = topk
    recorded = run(labels, tmp_path / 'record')
    if not topk:
        live = {k: v for k, v in labels.items() if k != 'teacher_labels'}
        same(run(live, tmp_path / 'live'), recorded)
    no_teacher(monkeypatch)
    for mode in ('auto', 'replay'):
        labels['teacher_labels']['mode'] = mode
        same(run(labels, tmp_path / mode), recorded)
    # Two workers, and another student.
    same(run(labels, tmp_path / 'workers', workers=2), recorded)
    labels['backbone']['arch'] = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
    labels['head']['in_channels'] = 16
    other = run(labels, tmp_path / 'student', scores=(1.0, 1.0))
    assert [step['teacher_acc'] for step in other[0] if 'teacher_acc' in step] == [
        step['teacher_acc'] for step in recorded[0] if 'teacher_acc' in step
    ][:10]


def test_recording_is_resumed(labels, tmp_path, monkeypatch):
    recorded = run(labels, tmp_path / 'whole')
    file = tmp_path / 'labels' / 'rank0.labels'
    whole = file.read_bytes()
    block = len(whole) // 20
    # A kill in the midst: what follows are holes, which are asked for again.
    file.write_bytes(whole[: 7 * block] + bytes(13 * block))
    asked = []
    ask = Teacher.__call__
    monkeypatch.setattr(Teacher, '__call__', lambda self, images: asked.append(1) or ask(self, images))
    same(run(labels, tmp_path / 'again'), recorded)
    assert len(asked) == 13
    assert file.read_bytes() == whole


def test_a_killed_training_goes_on_with_its_labels(labels, tmp_path):
    recorded = run(labels, tmp_path / 'whole')
    file = tmp_path / 'labels' / 'rank0.labels'
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(whole[:half] + bytes(half))
    resumed = run(labels, tmp_path / 'rest', resume=True, load_from=str(tmp_path / 'whole' / 'epoch_2.pth'))
    assert file.read_bytes() == whole
    for name, value in recorded[1].items():
        assert torch.equal(value, resumed[1][name]), name


def test_a_hole_is_no_label(labels, tmp_path):
    run(labels, tmp_path / 'record', scores=(1.0, 1.0))
    labels['teacher_labels']['mode'] = 'replay'
    with pytest.raises(ValueError, match='10.*20|20.*10'):
        run(labels, tmp_path / 'replay')  # of twice as many epochs


def test_a_damaged_label_is_found(labels, tmp_path):
    run(labels, tmp_path / 'record')
    file = tmp_path / 'labels' / 'rank0.labels'
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match='damaged at iteration 19'):
        run(labels, tmp_path / 'replay')


def other_weights(cfg, kwargs):
    path = cfg['teacher']['checkpoint']
    torch.save({k: v + 1 for k, v in torch.load(path).items()}, path)


def test_a_record_without_a_seed_is_refused_at_the_first_run(labels, tmp_path):
    with pytest.raises(
        ValueError, match=r'set `randomness=dict\(seed=0\)`, or .*`model.teacher_labels=None`'
    ):
        run(labels, tmp_path / 'record', randomness=dict(seed=None))
    assert not (tmp_path / 'labels').exists()


CHANGES = [
    ('seed', lambda c, k: k.update(randomness=dict(seed=3))),
    ('teacher_weights', other_weights),
    ('mixing', lambda c, k: c['train_cfg']['augments'].pop()),
    ('data_preprocessor.erasing', lambda c, k: c['data_preprocessor'].update(erasing=0.1)),
    ('sampler.shuffle', lambda c, k: k.update(sampler=dict(type='DefaultSampler', shuffle=False))),
    ('topk', lambda c, k: c['teacher_labels'].update(topk=2)),
    ('mixing.probs', lambda c, k: c['train_cfg'].update(probs=[0.9, 0.1])),
    (
        'pipeline',
        lambda c, k: k.update(
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    times=1,
                    dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE[1:]),
                ),
                batch_size=4,
                sampler=dict(type='DefaultSampler', shuffle=True),
                collate_fn=dict(type='default_collate'),
            )
        ),
    ),
    (
        'teacher_weights',
        lambda c, k: (
            c['teacher'].update(checkpoint='/nowhere/other.pth') or c['teacher_labels'].update(mode='replay')
        ),
    ),
]


@pytest.mark.parametrize('what, change', CHANGES, ids=range(len(CHANGES)))
def test_a_mismatch_is_named_before_the_first_step(what, change, labels, tmp_path):
    run(labels, tmp_path / 'record', scores=(1.0,))
    before = (tmp_path / 'labels' / 'rank0.labels').read_bytes()
    kwargs = {}
    change(labels, kwargs)
    message = f'`model.teacher_labels=None`(.|\n)*{what}' if what != 'topk' else what
    with pytest.raises(ValueError, match=message):
        run(labels, tmp_path / 'other', scores=(1.0,), **kwargs)
    assert (tmp_path / 'labels' / 'rank0.labels').read_bytes() == before


def test_a_sample_is_checked_with_the_teacher(labels, tmp_path):
    run(labels, tmp_path / 'record')
    labels['teacher_labels'].update(mode='replay', check_interval=5)
    runner = run(labels, tmp_path / 'replay')[2]
    log = next((tmp_path / 'replay').rglob('*.log')).read_text()
    assert log.count('the teacher gives 100.0 % of the labels') == 4
    teacher = runner.model.teacher_labels
    teacher.iteration, teacher.store = 0, SimpleNamespace(file='FILE')
    teacher._ask = lambda images: torch.full((4,), 9)
    with pytest.raises(ValueError, match='gives 0.0 % of the labels in FILE'):
        teacher._check(torch.zeros(4, dtype=torch.int64), None)


def test_the_weights_are_not_needed_to_replay(labels, tmp_path):
    recorded = run(labels, tmp_path / 'record')
    (tmp_path / 'teacher.pth').unlink()
    labels['teacher_labels']['mode'] = 'replay'
    same(run(labels, tmp_path / 'replay'), recorded)
    log = next((tmp_path / 'replay').rglob('*.log')).read_text()
    assert 'are not at hand' in log


def test_weights_in_a_folder(labels, tmp_path):
    folder = tmp_path / 'teacher'
    folder.mkdir()
    os.rename(tmp_path / 'teacher.pth', folder / 'pytorch_model.bin')
    labels['teacher']['checkpoint'] = str(folder)
    run(labels, tmp_path / 'record', scores=(1.0,))
    state = torch.load(folder / 'pytorch_model.bin')
    torch.save({k: v + 1 for k, v in state.items()}, folder / 'pytorch_model.bin')
    with pytest.raises(ValueError, match='teacher_weights'):
        run(labels, tmp_path / 'other', scores=(1.0,))


def test_a_teacher_of_random_weights_has_no_labels(labels, tmp_path):
    del labels['teacher']['checkpoint']
    with pytest.raises(ValueError, match='random weights'):
        run(labels, tmp_path / 'record')


def test_other_images_have_no_labels(labels, tmp_path):
    """Of a validation loss, say."""
    images = torch.randn(2, 3, 32, 32)
    runner = run(labels, tmp_path / 'record', scores=(1.0,))[2]
    student = runner.model
    student.teacher_labels.store = SimpleNamespace(read=None, write=None)
    with pytest.raises(ValueError, match='none for other images'):
        student.teacher_labels(images)
    student.eval()
    samples = make_batch(2)['data_samples']
    assert 'loss_distill' in student.loss(images, samples)  # asks the teacher


def test_a_whole_record_is_not_locked(labels, tmp_path, monkeypatch):
    """So that several students may replay it at once."""
    recorded = run(labels, tmp_path / 'record')
    monkeypatch.setattr(LabelStore, '_open_to_write', None)
    same(run(labels, tmp_path / 'second'), recorded)


def test_draws_that_do_not_repeat_are_refused(labels, tmp_path):
    with pytest.raises(ValueError, match='SeedHook'):
        run(labels, tmp_path / 'record', seed_hook=False)


def test_a_missing_hook_is_named(labels, tmp_path):
    runner = training(labels, tmp_path, batch_size=4)
    with pytest.raises(ValueError, match='TeacherLabelsHook'):
        runner.train()


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(mode='play'), "mode='play'"),
        (dict(topk=-1), 'topk=-1'),
    ],
)
def test_wrong_arguments(change, message, labels):
    labels['teacher_labels'].update(change)
    with pytest.raises(ValueError, match=message):
        build(labels)


def test_labels_of_no_teacher(labels):
    del labels['teacher']
    with pytest.raises(ValueError, match='model.teacher'):
        build(labels)


def test_soft_needs_probabilities(labels, tmp_path):
    labels['head']['loss'] = dict(type='DistillationLoss', mode='soft')
    with pytest.raises(ValueError, match='topk=10'):
        run(labels, tmp_path / 'record')


def test_no_room_on_the_disk(labels, tmp_path, monkeypatch):
    usage = __import__('shutil').disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr('shutil.disk_usage', lambda path: usage)
    with pytest.raises(OSError, match='No room for the labels'):
        run(labels, tmp_path / 'record')


def write_config(runner, path, **changes):
    """The config of a runner as a file."""
    cfg = runner.cfg.copy()
    cfg.update(changes, experiment_name=unique_name())
    path.write_text(json.dumps(cfg._cfg_dict.to_dict(), default=str))
    return str(path)


@HOOKS.register_module()
class Counts(Hook):
    """What a loop does, and what it gives the hooks."""

    def __init__(self):
        self.outputs = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append(outputs)


def test_the_command_records_without_the_student(labels, tmp_path, monkeypatch):
    """What it records a training replays, to the bit."""
    reference = tmp_path / 'labels' / 'rank0.labels'
    runner = run(labels, tmp_path / 'record')[2]
    asked, ask = [], Teacher.__call__
    monkeypatch.setattr(Teacher, '__call__', lambda self, images: asked.append(1) or ask(self, images))
    for _ in range(2):  # the second time there is nothing to do
        cfg = write_config(
            runner,
            tmp_path / 'cfg.json',
            load_from='of the student, which is not there.pth',
            default_hooks=dict(
                runner.cfg.default_hooks,
                finite_loss=dict(type='FiniteLossHook'),
                checkpoint=dict(type='AtomicCheckpointHook', save_best='auto'),
            ),
        )
        path = f'model.teacher_labels.path={tmp_path / "alone"}'
        assert main(['label', cfg, '--work-dir', str(tmp_path / 'work'), '--cfg-options', path]) == 0
        assert (tmp_path / 'alone' / 'rank0.labels').read_bytes() == reference.read_bytes()
        assert len(asked) == 20
    assert not list((tmp_path / 'work').rglob('*.pth'))


def test_the_loop_trains_nothing_and_calls_the_hooks_that_are_there(labels, tmp_path):
    """Also one that saves checkpoints, which the command leaves out."""
    counts = Counts()
    runner = training(
        labels,
        tmp_path / 'run',
        randomness=dict(seed=0),
        train_cfg=dict(type='TeacherLabelLoop', max_epochs=2),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        default_hooks=dict(
            seed=dict(type='SeedHook'),
            labels=dict(type='TeacherLabelsHook'),
            finite_loss=dict(type='FiniteLossHook'),
            checkpoint=dict(type='AtomicCheckpointHook', interval=1),
        ),
        custom_hooks=[],
    )
    runner.register_hook(counts)
    hooks = list(runner.hooks)
    runner.model.init_weights = lambda: None
    before = copy.deepcopy(runner.model.state_dict())
    runner.train()
    assert runner.hooks == hooks and counts.outputs == [{}] * 10
    assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())
    assert (tmp_path / 'run' / 'epoch_2.pth').exists()


def test_the_command_needs_something_to_record(labels, tmp_path, capsys):
    runner = training({k: v for k, v in labels.items() if k != 'teacher_labels'}, tmp_path, batch_size=4)
    cfg = write_config(runner, tmp_path / 'cfg.json')
    assert main(['label', cfg, '--work-dir', str(tmp_path)]) == 2
    assert 'nothing to record' in capsys.readouterr().err


def test_the_command_does_not_replay(labels, tmp_path, capsys):
    labels['teacher_labels']['mode'] = 'replay'
    runner = training(labels, tmp_path, batch_size=4, randomness=dict(seed=0))
    hooks = dict(seed=dict(type='SeedHook'), labels=dict(type='TeacherLabelsHook'))
    cfg = write_config(runner, tmp_path / 'cfg.json', default_hooks=hooks)
    assert main(['label', cfg, '--work-dir', str(tmp_path)]) == 2
    assert 'Nothing to replay' in capsys.readouterr().err


# --- the loss of the first k ----------------------------------------------


def logits(classes=50):
    generator = torch.Generator().manual_seed(0)
    student, teacher = 3 * torch.randn(2, 8, classes, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def soft(student, answer, tau):
    loss = DistillationLoss(mode='soft', tau=tau, alpha=1.0, soft_reduction='batchmean', distill_on='cls')
    return loss(student, torch.zeros(8, dtype=torch.int64), answer)['loss_distill']


@pytest.mark.parametrize('tau', [1.0, 3.0])
def test_the_first_k_approach_the_whole_from_below(tau):
    student, teacher = logits()
    whole = soft(student, teacher, tau)
    probs = (teacher / tau).softmax(1)
    losses = [soft(student, tuple(reversed(probs.topk(k, 1))), tau) for k in (1, 5, 20, 50)]
    assert all(a <= b + 1e-12 for a, b in zip(losses, losses[1:]))
    torch.testing.assert_close(losses[-1], whole)
    # and the gradients too
    (given,) = torch.autograd.grad(losses[-1], student, retain_graph=True)
    (wanted,) = torch.autograd.grad(whole, student)
    torch.testing.assert_close(given, wanted)


def test_the_loss_of_the_first_k_is_that_of_merged_classes():
    student, teacher = logits()
    probs, classes = teacher.softmax(1).topk(4, 1)
    merged = []
    for values in (student.softmax(1), teacher.softmax(1)):
        first = values.gather(1, classes)
        merged.append(torch.cat([first, 1 - first.sum(1, keepdim=True)], 1))
    expected = F.kl_div(merged[0].log(), merged[1], reduction='batchmean')
    torch.testing.assert_close(soft(student, (classes, probs), 1.0), expected)


def test_classes_alone_are_hard_labels():
    student, teacher = logits()
    loss = DistillationLoss(mode='hard', distill_on='cls')
    target = torch.zeros(8, dtype=torch.int64)
    expected = loss(student, target, teacher)
    for answer in (teacher.argmax(1), tuple(reversed(teacher.softmax(1).topk(3, 1)))):
        assert loss(student, target, answer) == expected
    with pytest.raises(ValueError, match='more than the classes'):
        soft(student, teacher.argmax(1), 1.0)


def test_a_launcher_that_is_not_running(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    assert main(['label', 'any.py', '--launcher', 'pytorch']) == 2
    assert 'torchrun --nproc_per_node 8' in capsys.readouterr().err
