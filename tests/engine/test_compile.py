"""Compiled by one switch, and nothing else is other."""

import copy

import torch
from conftest import build, make_batch, make_runner, step

from deit_plugin.engine import CompileHook

HOOKS = [
    dict(type='CompileHook', backend='eager'),
    dict(type='EMAHook', momentum=0.1),
    dict(type='SeedHook'),
]


def test_a_compiled_training_is_the_same(distilled_cfg, tmp_path):
    """With the runner, the moving average and a teacher; `eager` runs what
    was traced as it is."""
    teacher = build(distilled_cfg['teacher'])
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    distilled_cfg['teacher']['checkpoint'] = str(tmp_path / 'teacher.pth')
    runs = []
    for hooks in (HOOKS, HOOKS[1:]):
        folder = tmp_path / str(len(hooks))
        folder.mkdir()
        runner = make_runner(
            distilled_cfg, folder, scores=(1.0, 1.0), custom_hooks=hooks, randomness=dict(seed=0)
        )
        runner.train()
        runs.append(torch.load(folder / 'epoch_2.pth'))
    compiled, plain = runs
    assert runner.model.backbone._compiled_call_impl is None
    for part in ('state_dict', 'ema_state_dict'):
        assert compiled[part].keys() == plain[part].keys()
        for name, value in plain[part].items():
            torch.testing.assert_close(compiled[part][name], value)


def test_student_and_teacher_are_compiled(distilled_cfg, tmp_path):
    runner = make_runner(distilled_cfg, tmp_path)
    CompileHook(backend='eager').before_train(runner)
    model = runner.model
    step(model, make_batch())
    assert model.backbone._compiled_call_impl is not None
    assert model.teacher.model._compiled_call_impl is not None
    copy.deepcopy(model)  # as a moving average does


def test_the_teacher_may_be_left_out(distilled_cfg, tmp_path):
    runner = make_runner(distilled_cfg, tmp_path)
    CompileHook(teacher=False, backend='eager').before_train(runner)
    step(runner.model, make_batch())
    assert runner.model.teacher.model._compiled_call_impl is None


def test_a_classifier_without_a_teacher(distilled_cfg, tmp_path):
    del distilled_cfg['teacher']
    distilled_cfg['head']['loss']['mode'] = 'none'
    runner = make_runner(distilled_cfg, tmp_path)
    CompileHook(backend='eager').before_train(runner)
    step(runner.model, make_batch())
    assert runner.model.backbone._compiled_call_impl is not None
