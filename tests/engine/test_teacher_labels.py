"""A teacher that is paid for once: recorded, then replayed."""

import copy
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from conftest import ARCH, build, make_batch, teacher_cfg
from mmengine.config import Config
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS, MODELS
from safetensors.numpy import load_file
from trainings import PIPELINE, stop_workers, training, unique_name

from deit_plugin.__main__ import main
from deit_plugin.draws import Iteration, set_iteration
from deit_plugin.models import DeiTHead, DistillationLoss
from deit_plugin.models.teacher import Teacher
from deit_plugin.models.teacher_labels import TeacherLabels
from deit_plugin.teacher_cache import fingerprint
from deit_plugin.teacher_cache.record import read_epoch

pytestmark = pytest.mark.usefixtures('quick')


@pytest.fixture
def labels(drawing_model, tmp_path):
    drawing_model['teacher_labels'] = dict(path=str(tmp_path / 'labels'))
    return drawing_model


def run(cfg, folder, seed_hook=True, batch=4, workers=0, sampler=None, checkpoint=None, **kwargs):
    """The losses of a training, and its last weights."""
    hooks = dict(
        checkpoint=dict(dict(type='AtomicCheckpointHook', interval=1), **checkpoint or {}),
        batch=dict(type='GlobalBatchHook', batch_size=batch),
        logger=dict(type='LoggerHook', interval=1),
        labels=dict(type='TeacherLabelsHook'),
    )
    if seed_hook:
        hooks['seed'] = dict(type='SeedHook')
    loader = dict(
        dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE),
        batch_size=batch,
        num_workers=workers,
        sampler=sampler or dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
    )
    defaults = dict(randomness=dict(seed=0), default_hooks=hooks, train_dataloader=loader)
    runner = training(cfg, folder, **{**defaults, **kwargs})
    runner.train()
    stop_workers(runner)
    files = [*folder.rglob('scalars.json')]  # of the first process alone
    lines = files[0].read_text().splitlines() if files else ()
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


VIRTUAL = dict(type='RepeatedAugmentSampler', repeat=True, processes=4, batch_size=2)


def files(folder):
    """The epochs of a record, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob('*.safetensors'))}


def run_in_group(rank, folder, cfg):
    torch.set_num_threads(1)
    Config.pretty_text = ''
    group = dict(init_method=f'file://{folder}/group', timeout=timedelta(minutes=1))
    os.environ['LOCAL_RANK'] = '0'
    dist.init_process_group('gloo', rank=rank, world_size=2, **group)
    try:
        cfg = copy.deepcopy(cfg)
        # The first process alone sees the folder.
        cfg['teacher_labels']['path'] += '' if rank == 0 else '-which-is-not-here'
        wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
        kwargs = dict(launcher='pytorch', model_wrapper_cfg=wrapper, sampler=VIRTUAL, custom_hooks=[])
        return run(cfg, folder / f'{rank}', batch=4, **kwargs)[0]
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_write_and_read_what_one_does(labels, tmp_path):
    """Whatever their batch and their workers."""
    path = tmp_path / 'labels'
    run(labels, tmp_path / 'one', batch=8, sampler=VIRTUAL, workers=2)
    whole = files(path)
    assert len(whole) == 4
    path.rename(tmp_path / 'of one')
    run(labels, tmp_path / 'half', batch=4, sampler=VIRTUAL)
    assert files(path) == whole
    path.rename(tmp_path / 'of halves')
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool:

        def both(folder):
            folder.mkdir()
            jobs = [pool.submit(run_in_group, rank, folder, labels) for rank in range(2)]
            return [job.result() for job in jobs]

        recorded = both(tmp_path / 'two')
        assert contents(path) == contents(tmp_path / 'of one')
        labels['teacher_labels']['mode'] = 'replay'
        labels['teacher_labels']['path'] = str(tmp_path / 'of one')
        labels['teacher']['checkpoint'] = '/nowhere/teacher.pth'
        assert both(tmp_path / 'again') == recorded


def contents(folder):
    """The epochs of a record, but for the teacher's accuracy, which not all who record see."""
    found = {}
    for path in sorted(folder.glob('*.safetensors')):
        about, arrays = read_epoch(str(path))
        about.pop('teacher_acc', None)
        found[path.name] = about, [array.tolist() for array in arrays]
    return found


@pytest.mark.parametrize('batch', [8, 4, 2])
def test_any_batch_writes_and_reads_the_same(batch, labels, tmp_path, monkeypatch):
    recorded = run(labels, tmp_path / 'live', batch=batch, sampler=VIRTUAL, scores=(1.0,) * 2)
    other = run(labels, tmp_path / 'other', batch=8, sampler=VIRTUAL, scores=(1.0,) * 3)
    assert recorded[2].model.teacher_labels.recorded == {0, 1}
    assert other[2].model.teacher_labels.recorded == {0, 1, 2}  # a longer training goes on
    live = {k: v for k, v in labels.items() if k != 'teacher_labels'}
    same(run(live, tmp_path / 'live of 8', batch=8, sampler=VIRTUAL, scores=(1.0,) * 3), other)
    no_teacher(monkeypatch)
    labels['teacher_labels']['mode'] = 'replay'
    same(run(labels, tmp_path / 'replay', batch=batch, sampler=VIRTUAL, scores=(1.0,) * 2), recorded)


class Kill(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 12:  # in the third epoch of five iterations
            raise KeyboardInterrupt


def test_a_kill_loses_the_epoch_that_it_interrupts(labels, tmp_path, monkeypatch):
    recorded = run(labels, tmp_path / 'whole')
    whole = files(tmp_path / 'labels')
    (tmp_path / 'labels').rename(tmp_path / 'of the whole')
    with pytest.raises(KeyboardInterrupt):
        run(labels, tmp_path / 'killed', custom_hooks=[dict(type=Kill)])
    assert list(files(tmp_path / 'labels')) == list(whole)[:2]
    asked = []
    ask = Teacher.__call__
    monkeypatch.setattr(Teacher, '__call__', lambda self, images: asked.append(1) or ask(self, images))
    checkpoint = str(tmp_path / 'killed' / 'epoch_2.pth')
    resumed = run(labels, tmp_path / 'rest', resume=True, load_from=checkpoint, custom_hooks=EMA)
    assert len(asked) == 10 and files(tmp_path / 'labels') == whole
    for name, value in recorded[1].items():
        assert torch.equal(value, resumed[1][name]), name
    labels['teacher_labels']['mode'] = 'record'
    run(labels, tmp_path / 'anew')
    assert len(asked) == 30 and files(tmp_path / 'labels') == whole


EMA = [dict(type='EMAHook', momentum=0.1)]


def test_an_epoch_that_a_resumption_begins_anew_is_recorded(labels, tmp_path):
    run(labels, tmp_path / 'whole', custom_hooks=EMA, checkpoint=dict(by_epoch=False, interval=7))
    whole = contents(tmp_path / 'labels')
    (tmp_path / 'labels' / 'epoch-0001.safetensors').unlink()
    amid = dict(resume=True, load_from=str(tmp_path / 'whole' / 'iter_7.pth'), custom_hooks=EMA)
    replay = dict(labels['teacher_labels'], mode='replay')
    with pytest.raises(ValueError, match=r'epoch 1 is missing in .*epochs 0, 2 to 3 are there'):
        run({**labels, 'teacher_labels': replay}, tmp_path / 'missing', **amid)
    run(labels, tmp_path / 'rest', **amid)
    assert contents(tmp_path / 'labels') == whole


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
    before = {path: path.read_bytes() for path in (tmp_path / 'labels').iterdir()}
    kwargs = {}
    change(labels, kwargs)
    message = f'`model.teacher_labels=None`(.|\n)*{what}' if what != 'topk' else what
    with pytest.raises(ValueError, match=message):
        run(labels, tmp_path / 'other', scores=(1.0,), **kwargs)
    assert {path: path.read_bytes() for path in (tmp_path / 'labels').iterdir()} == before


def test_a_sample_is_checked_with_the_teacher(labels, tmp_path):
    run(labels, tmp_path / 'record')
    labels['teacher_labels'].update(mode='replay', check_interval=5)
    model = run(labels, tmp_path / 'replay')[2].model
    log = next((tmp_path / 'replay').rglob('*.log')).read_text()
    assert log.count('the teacher gives 100.0 % of the labels') == 4
    assert model.teacher_labels.agreements == [100.0] * 4


def others(self, images):
    return (classes + 1) % 5 if (classes := ASK(self, images)).ndim == 1 else classes


ASK = TeacherLabels._ask
SOFT = [
    (dict(cpu='NONE'), 'cpu: "NONE" -> '),
    (dict(versions=dict(torch='1')), 'versions.torch: "1" -> '),
    (dict(decoder=['pillow']), 'decoder.0: "pillow" -> absent'),
    (dict(precision='AmpOptimWrapper None', device='cuda'), 'device: "cuda" -> "cpu"'),
]


@pytest.mark.parametrize('change, message', SOFT, ids=range(len(SOFT)))
def test_what_changes_by_a_rounding_is_a_warning(change, message, labels, tmp_path, monkeypatch):
    found = fingerprint._recorded_on
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, '_recorded_on', lambda *args: {**found(*args), **change})
        run(labels, tmp_path / 'record', scores=(1.0,))
    model = run(labels, tmp_path / 'replay', scores=(1.0,))[2].model
    log = next((tmp_path / 'replay').rglob('*.log')).read_text()
    assert message in log and 'The first batch is compared' in log
    assert model.teacher_labels.agreements == [100.0]
    with monkeypatch.context() as patch:
        patch.setattr(TeacherLabels, '_ask', others)
        with pytest.raises(ValueError, match=f'gives 0.0 % of the labels in {tmp_path}'):
            run(labels, tmp_path / 'others', scores=(1.0,))
    (tmp_path / 'teacher.pth').unlink()
    model = run(labels, tmp_path / 'without', scores=(1.0,))[2].model
    log = next((tmp_path / 'without').rglob('*.log')).read_text()
    assert message in log and 'not at hand to compare' in log and not model.teacher_labels.agreements


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
    student = run(labels, tmp_path / 'record', scores=(1.0,))[2].model
    with pytest.raises(ValueError, match='none for other images'):
        student.teacher_labels(images)
    student.eval()
    samples = make_batch(2)['data_samples']
    assert 'loss_distill' in student.loss(images, samples)  # asks the teacher


def test_what_a_file_holds(labels, tmp_path):
    """Read without this package."""
    runner = run(labels, tmp_path / 'record', sampler=dict(type='DefaultSampler'), batch=8)[2]
    header = json.loads((tmp_path / 'labels' / 'header.json').read_text())
    assert str(tmp_path) not in json.dumps(header) and header['data']['type'] == 'Dots'
    recipe = header['recipe']
    assert (recipe['steps'], recipe['processes'], recipe['batch_size']) == (3, 1, 8)
    assert recipe['dataset']['images'] == 20 and recipe['teacher_weights'][0]['name'] == 'teacher.pth'
    assert header['seen_while_recording']['epoch'] == 3
    assert 0 <= header['seen_while_recording']['teacher_acc'] <= 100
    classes = load_file(tmp_path / 'labels' / 'epoch-0003.safetensors')['classes']
    assert classes.dtype == np.uint16 and classes.shape == (3, 1, 8)
    assert (classes[:2] < 5).all() and (classes[2, 0, :4] < 5).all() and (classes[2, 0, 4:] == 65535).all()
    # What the teacher says to the images of the last epoch.
    teacher = runner.model.teacher
    loader = runner.train_dataloader
    loader.batch_sampler.sampler.epoch = 3
    for step, batch in enumerate(loader):
        set_iteration(Iteration(0, 9 + step, range(1), 8))
        images = runner.model.data_preprocessor(batch, training=True)['inputs']
        set_iteration(None)
        expected = teacher(images).argmax(1)
        assert classes[step, 0, : len(expected)].tolist() == expected.tolist()


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
        (dict(check_interval=-1), 'check_interval=-1'),
    ],
)
def test_wrong_arguments(change, message, labels):
    labels['teacher_labels'].update(change)
    with pytest.raises(ValueError, match=message):
        build(labels)


def test_a_student_of_timm_replays_what_another_recorded(labels, tmp_path, monkeypatch):
    run(labels, tmp_path / 'record', scores=(1.0,))
    no_teacher(monkeypatch)
    small = {k: v for k, v in teacher_cfg().items() if k not in ('type', 'data_preprocessor')}
    kept = ('teacher', 'teacher_labels', 'train_cfg', 'data_preprocessor')
    loss = dict(type='DistillationLoss', distill_on='cls')
    student = dict(small, type='DistilledTimmClassifier', loss=loss, **{k: labels[k] for k in kept})
    losses = run(student, tmp_path / 'replay', scores=(1.0,))[0]
    assert len([step for step in losses if 'loss_distill' in step]) == 5


def test_several_teachers_are_recorded_as_one(labels, tmp_path, monkeypatch):
    other = dict(labels['teacher'], checkpoint=str(tmp_path / 'other.pth'))
    torch.save(build({**other, 'checkpoint': None}).state_dict(), tmp_path / 'other.pth')
    members = [labels['teacher'], other]
    norm = dict(mean=[120.0] * 3, std=[60.0] * 3)
    labels['teacher'] = dict(type='EnsembleClassifier', members=members, data_preprocessor=norm)
    live = run({**labels, 'teacher_labels': None}, tmp_path / 'live')
    recorded = run(labels, tmp_path / 'record')
    same(live, recorded)
    no_teacher(monkeypatch)
    same(run(labels, tmp_path / 'replay'), recorded)
    other_weights(dict(teacher=other), {})
    with pytest.raises(ValueError, match='teacher_weights.1.sha256'):
        run(labels, tmp_path / 'others')


def test_more_probabilities_than_classes(labels, tmp_path):
    labels['teacher_labels']['topk'] = 6
    with pytest.raises(ValueError, match='topk=6 is more than the 5 classes'):
        run(labels, tmp_path / 'record')


@MODELS.register_module()
class HeadOfMore(DeiTHead):
    def forward(self, feats):
        return torch.nn.functional.pad(super().forward(feats), (0, 2))


def test_a_teacher_of_other_classes_than_its_config_tells(labels, tmp_path):
    """Of timm all is known from the start; a head may say one number and give another."""
    backbone = dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8)
    head = dict(type='HeadOfMore', num_classes=5, in_channels=32)
    teacher = dict(type='ImageClassifier', backbone=backbone, head=head)
    torch.save(build(teacher).state_dict(), tmp_path / 'teacher.pth')
    labels['teacher'] = dict(teacher, checkpoint=str(tmp_path / 'teacher.pth'))
    with pytest.raises(ValueError, match='gives 7 classes, and 5 are recorded'):
        run(labels, tmp_path / 'record')


def test_labels_of_no_teacher(labels):
    del labels['teacher']
    with pytest.raises(ValueError, match='model.teacher'):
        build(labels)


def test_soft_needs_probabilities(labels, tmp_path):
    labels['head']['loss'] = dict(type='DistillationLoss', mode='soft')
    with pytest.raises(ValueError, match='topk=10'):
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


def test_the_command_records_without_the_student(labels, tmp_path, monkeypatch, capsys):
    """What it records is what a training does, in parts that are put together."""
    runner = run(labels, tmp_path / 'record', scores=(1.0,) * 3)[2]
    whole = contents(tmp_path / 'labels')
    asked, ask = [], Teacher.__call__
    monkeypatch.setattr(Teacher, '__call__', lambda self, images: asked.append(1) or ask(self, images))
    changes = dict(
        load_from='of the student, which is not there.pth',
        train_cfg=dict(by_epoch=True, max_epochs=1),
        default_hooks=dict(
            runner.cfg.default_hooks,
            finite_loss=dict(type='FiniteLossHook'),
            checkpoint=dict(type='AtomicCheckpointHook', save_best='auto'),
        ),
    )

    def command(*arguments, folder='alone'):
        cfg = write_config(runner, tmp_path / 'cfg.json', **changes)
        options = ['--cfg-options', f'model.teacher_labels.path={tmp_path / folder}']
        return main(['label', cfg, *arguments, '--work-dir', str(tmp_path / 'work'), *options])

    for _ in range(2):  # the second time there is nothing to do
        assert command() == command('--epochs', '1:3', folder='rest') == 0
        assert len(asked) == 15
    os.rename(tmp_path / 'alone' / 'epoch-0000.safetensors', tmp_path / 'rest' / 'epoch-0000.safetensors')
    assert contents(tmp_path / 'rest') == whole
    assert not list((tmp_path / 'work').rglob('*.pth'))
    assert command('--check', str(tmp_path / 'rest')) == 0
    output = capsys.readouterr().out
    assert 'epochs 0 to 2 are sound' in output and '5 steps of 1 x 4 images' in output
    assert 'The teacher gives 100.0 % of a sample' in output and len(asked) == 15 + 3 * 2
    monkeypatch.setattr(TeacherLabels, '_ask', others)
    assert command('--check', str(tmp_path / 'rest')) == 2
    assert 'gives 0.0 % of the labels' in capsys.readouterr().err


@pytest.mark.parametrize('epochs', ['5', '3:3', 'a:b', '-1:2'])
def test_no_epochs(epochs, labels, tmp_path, capsys):
    cfg = write_config(training(labels, tmp_path, batch_size=4), tmp_path / 'cfg.json')
    assert main(['label', cfg, f'--epochs={epochs}', '--work-dir', str(tmp_path)]) == 2
    assert f'--epochs {epochs} names no epochs' in capsys.readouterr().err


def test_training_by_iteration_has_no_epochs(labels, tmp_path):
    by_iteration = dict(train_cfg=dict(by_epoch=False, max_iters=2), param_scheduler=None)
    with pytest.raises(ValueError, match='IterBasedTrainLoop has none: set `train_cfg'):
        run(labels, tmp_path / 'record', **by_iteration)


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
    assert "mode='replay' records nothing" in capsys.readouterr().err


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
