"""The course of a training, read back from what mmengine logged, also across a resumption."""

import json

import pytest
from conftest import distilled, teacher_cfg
from trainings import training

from deit_plugin.visualization.curves import read_scalars
from deit_plugin.visualization.figures import CURVES, curves_figure

pytestmark = pytest.mark.usefixtures('quick')


def log(folder, start, rows):
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


def iteration(step, **values):
    return dict(step=step, iter=step, epoch=1, **values)


def test_what_a_later_start_repeats_stands_for_what_was_logged_before(tmp_path):
    log(
        tmp_path,
        '20260101_000000',
        [iteration(5, loss=3.0), iteration(10, loss=2.0), iteration(15, loss=9.0)],
    )
    log(tmp_path, '20260102_000000', [iteration(15, loss=1.0), iteration(20, loss=0.5)])
    found = read_scalars(str(tmp_path), iterations=10)
    assert found['loss'] == [(0.5, 3.0), (1.0, 2.0), (1.5, 1.0), (2.0, 0.5)]


def test_a_validation_is_placed_by_its_epoch(tmp_path):
    rows = [iteration(10, loss=2.0), {'step': 1, 'accuracy/top1': 50.0}]
    log(tmp_path, '20260101_000000', rows)
    assert read_scalars(str(tmp_path), iterations=10)['accuracy/top1'] == [(1.0, 50.0)]


def test_a_line_that_a_kill_cut_off(tmp_path):
    path = log(tmp_path, '20260101_000000', [iteration(5, loss=3.0)])
    path.write_text(path.read_text() + '{"loss": 2.0, "st\n[]\n{"step": "x"}\n{"step": 10, "loss": null}\n')
    assert read_scalars(str(tmp_path), iterations=5)['loss'] == [(1.0, 3.0)]


def test_of_nothing_there_is_no_picture(tmp_path):
    assert read_scalars(str(tmp_path), iterations=5) == {} and curves_figure({}) is None


def test_a_training_and_its_continuation_are_one_picture(tmp_path):
    model = distilled(teacher=teacher_cfg())
    options = dict(custom_hooks=[dict(type='CurvesHook')], log_processor=dict(by_epoch=True))
    hooks = dict(
        logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='AtomicCheckpointHook', interval=1)
    )
    training(model, tmp_path / 'run', default_hooks=hooks, scores=(1.0, 2.0), **options).train()
    first = (tmp_path / 'run' / 'curves.png').stat()
    options.update(load_from=str(tmp_path / 'run' / 'epoch_2.pth'), resume=True)
    training(model, tmp_path / 'run', default_hooks=hooks, **options).train()
    assert (tmp_path / 'run' / 'curves.png').stat().st_mtime_ns > first.st_mtime_ns
    scalars = read_scalars(str(tmp_path / 'run'), 5)
    assert [round(5 * epoch) for epoch, _ in scalars['loss']] == list(range(1, 21))
    assert [epoch for epoch, _ in scalars['accuracy/top1']] == [1, 2, 3, 4]
    expected = {name for names in CURVES.values() for name in names} - {'accuracy/top5'}
    assert expected <= scalars.keys()
    assert len(curves_figure(scalars).axes) == len(CURVES)
