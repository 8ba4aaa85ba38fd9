"""What only a CUDA device shows."""

import pytest
import torch
from conftest import build, make_batch, make_runner, step


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_training_under_amp(distilled_cfg, tmp_path, dtype):
    wrapper = dict(type='AmpOptimWrapper', dtype=dtype, optimizer=dict(type='AdamW'))
    runner = make_runner(distilled_cfg, tmp_path, scores=(1.0, 2.0), optim_wrapper=wrapper)
    answers = []
    model = runner.model
    model.teacher.build()
    model.teacher.model.register_forward_hook(lambda m, args, out: answers.append(out))
    runner.train()
    assert {a.dtype for a in answers} == {getattr(torch, dtype)}
    assert {a.device.type for a in answers} == {'cuda'}


@pytest.mark.gpu
def test_teacher_follows_the_student(distilled_cfg):
    distilled_cfg['teacher']['data_preprocessor']['mean'] = [0.0] * 3
    model = build(distilled_cfg).train()
    on_cpu = step(model, make_batch())
    on_gpu = step(model.cuda(), make_batch())
    for name, value in on_gpu.items():
        assert value.is_cuda
        torch.testing.assert_close(value.cpu(), on_cpu[name], atol=1e-2, rtol=1e-2)
