"""Compiled by one switch, and nothing else is other."""

import copy

import pytest
import torch
from conftest import build, make_batch, make_runner, step

from deit_plugin.engine import CompileHook

pytestmark = pytest.mark.usefixtures('quick')
HOOKS = [
    dict(type='CompileHook', backend='eager'),
    dict(type='EMAHook', momentum=0.1),
    dict(type='SeedHook'),
]


@pytest.fixture
def cfg(distilled_cfg):
    """Of one layer, since each is traced."""
    distilled_cfg['backbone']['arch']['num_layers'] = 1
    return distilled_cfg


def test_a_compiled_training_is_the_same(cfg, tmp_path):
    """With the runner, the moving average and a teacher; `eager` runs what was traced as it is. By our hook,
    and by mmengine's `compile`, which traces the whole step and leaves out the teacher."""
    teacher = build(cfg['teacher'])
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    cfg['teacher']['checkpoint'] = str(tmp_path / 'teacher.pth')
    runs = []
    for name, hooks, whole in (
        ('plain', HOOKS[1:], False),
        ('hook', HOOKS, False),
        ('whole', HOOKS[1:], True),
    ):
        (tmp_path / name).mkdir()
        options = dict(compile=dict(backend='eager')) if whole else {}
        runner = make_runner(
            cfg, tmp_path / name, scores=(1.0,), custom_hooks=hooks, randomness=dict(seed=0), **options
        )
        runner.train()
        runs.append(torch.load(tmp_path / name / 'epoch_1.pth'))
        assert (runner.model.backbone._compiled_call_impl is not None) == (hooks is HOOKS)
    for compiled in runs[1:]:
        for part in ('state_dict', 'ema_state_dict'):
            assert compiled[part].keys() == runs[0][part].keys()
            for name, value in runs[0][part].items():
                torch.testing.assert_close(compiled[part][name], value)


def test_student_and_teacher_are_compiled(cfg, tmp_path):
    runner = make_runner(cfg, tmp_path)
    CompileHook(backend='eager').before_train(runner)
    model = runner.model
    step(model, make_batch())
    assert model.backbone._compiled_call_impl is not None
    assert model.teacher.model._compiled_call_impl is not None
    copy.deepcopy(model)  # as a moving average does


def test_the_teacher_may_be_left_out(cfg, tmp_path):
    runner = make_runner(cfg, tmp_path)
    CompileHook(teacher=False, backend='eager').before_train(runner)
    step(runner.model, make_batch())
    assert runner.model.teacher.model._compiled_call_impl is None


def test_a_classifier_without_a_teacher(cfg, tmp_path):
    del cfg['teacher']
    cfg['head']['loss']['mode'] = 'none'
    runner = make_runner(cfg, tmp_path)
    CompileHook(backend='eager').before_train(runner)
    step(runner.model, make_batch())
    assert runner.model.backbone._compiled_call_impl is not None


@pytest.mark.slow
def test_a_student_of_timm_is_compiled_as_a_whole(cfg, tmp_path):
    student = dict(type='DistilledTimmClassifier', model_name='repvit_m0_9', num_classes=5)
    student.update(embed_dim=(8, 16, 24, 32), depth=(1, 1, 1, 1), teacher=cfg['teacher'])
    runner = make_runner(dict(student, data_preprocessor=cfg['data_preprocessor']), tmp_path)
    plain = copy.deepcopy(runner.model).eval()
    CompileHook(backend='eager').before_train(runner)
    model = runner.model
    assert model.model._compiled_call_impl is not None and model.teacher.compile_kwargs
    assert 'loss_distill' in step(model, make_batch())
    images = make_batch()['inputs'][0][None].float()
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.eval()(images), plain(images))
