"""50 steps of a student of timm against timm's own task, optimizer and clipping, in double precision."""

import pytest
import torch
import torch.nn as nn
from conftest import InSinglePrecision, build
from mmengine.optim import build_optim_wrapper
from mmpretrain.structures import DataSample
from timm import create_model
from timm.models import model_parameters
from timm.optim import create_optimizer_v2
from timm.task import TokenDistillationTask
from timm.utils import dispatch_clip_grad

pytestmark = [pytest.mark.usefixtures('quick'), pytest.mark.slow]
K, STEPS, BATCH = 5, 50, 8
MODEL = dict(model_name='repvit_m0_9', embed_dim=(8, 16, 24, 32), depth=(1, 1, 2, 1), num_classes=K)
STUDENT = dict(
    MODEL,
    type='DistilledTimmClassifier',
    loss=dict(type='DistillationLoss', base_loss=dict(type='CrossEntropyLoss')),
    teacher=dict(type='TimmClassifier', model_name='resnet10t', num_classes=K),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
)
OPTIMIZER = dict(type='AdamW', lr=1e-3, weight_decay=0.025)
PARAMWISE = dict(norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0)


def test_fifty_steps_equal_timms():
    torch.manual_seed(0)
    model = build(STUDENT)
    model.teacher.build()
    student = create_model(**MODEL)
    student.load_state_dict(model.model.state_dict())
    task = TokenDistillationTask(
        student,
        InSinglePrecision(model.teacher.model.model),
        criterion=nn.CrossEntropyLoss(),
        distill_type='hard',
        task_loss_weight=0.5,
        verbose=False,
    )
    task.teacher.normalize_input = lambda images, mean, std: images
    model.double().train(), student.double()
    task.train()
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='mmpretrain.GroupedOptimWrapperConstructor',
            optimizer=OPTIMIZER,
            paramwise_cfg=PARAMWISE,
            clip_grad=dict(type='agc', clip_factor=0.02),
        ),
    )
    optimizer = create_optimizer_v2(student, 'adamw', lr=1e-3, weight_decay=0.025)
    images, labels = torch.randn(5, BATCH, 3, 32, 32).double(), torch.arange(BATCH) % K
    samples = [DataSample().set_gt_label(int(label)) for label in labels]
    ours, timms = [], []
    for i in range(STEPS):
        loss = model.parse_losses(model(images[i % 5], samples, mode='loss'))[0]
        wrapper.update_params(loss)
        ours.append(loss.item())
        optimizer.zero_grad()
        loss = task(images[i % 5], labels)['loss']
        loss.backward()
        dispatch_clip_grad(model_parameters(student, exclude_head=True), 0.02, mode='agc')
        optimizer.step()
        timms.append(loss.item())
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(timms), rtol=1e-6, atol=0)
    assert ours[-1] < ours[0] - 0.1  # it learns
    for name, value in student.state_dict().items():
        torch.testing.assert_close(model.model.state_dict()[name], value, rtol=1e-5, atol=1e-8)
