"""50 steps of each family of students by its config and our runner, against a plain loop over timm's model,
optimizer groups, schedule and clipping as the original trains it, in double precision."""

import pytest
import torch
from conftest import Noise, build, config, teacher_cfg
from test_trajectory import reference_loss
from timm import create_model
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import dispatch_clip_grad
from trainings import trajectory

pytestmark = [pytest.mark.usefixtures('quick'), pytest.mark.slow]
EPOCHS, STEPS, K = 10, 5, 5
NARROW = dict(embed_dims=(4, 8, 8, 8), depths=(1, 1, 1, 1), num_vit=1)
# The smallest model that has each kind of layer, its images, and how many of them: with fewer the norms of
# the last stage divide by next to nothing, and rounding grows.
SMALL = dict(
    levit_128s=(
        dict(img_size=64, embed_dim=(8, 16, 24), num_heads=(1, 2, 2), depth=(1, 1, 1), key_dim=8),
        (8, 64),
    ),
    efficientformer_l1=(dict(NARROW, depths=(1, 1, 1, 2)), (2, 224)),
    efficientformerv2_s0=(dict(NARROW, img_size=64, mlp_ratios=2.0), (2, 64)),
    repvit_m0_9=(dict(embed_dim=(8, 16, 24, 32), depth=(1, 1, 2, 1)), (8, 32)),
    fastvit_sa12=(
        dict(embed_dims=(8, 16, 32, 32), layers=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2)),
        (8, 32),
    ),
)
# Of the original repositories, at the commits that configs/students name. ``exempt`` are of more than one
# dimension and do not decay; ``decayed`` do, for they have three dimensions there.
ORIGINALS = dict(
    levit_128s=dict(lr=2e-3, decay=0.025, clip=0.01, exempt='attention_biases'),
    efficientformer_l1=dict(lr=1e-3, warmup_lr=1e-5, decay=0.025, clip=0.01),
    efficientformerv2_s0=dict(lr=1e-3, warmup_lr=1e-5, decay=0.025, clip=0.01, decayed='.gamma'),
    repvit_m0_9=dict(lr=3e-3, decay=0.025, clip=0.02),
    fastvit_sa12=dict(lr=1e-3, decay=0.05, late=0, period=300),
)


def small(name):
    """The config with its model made small."""
    cfg = config(f'students/{name}')
    cfg.model.update(SMALL[name][0], num_classes=K)
    cfg.model.teacher = teacher_cfg(K)
    cfg.model.train_cfg = None  # each side would mix for itself
    cfg.model.data_preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
    return cfg


def ours(cfg, shape, model, folder):
    """The losses and the student after our runner has trained it."""
    optim = cfg.optim_wrapper.to_dict()
    optim['type'] = 'OptimWrapper'
    for option in ('dtype', 'loss_scale'):
        optim.pop(option, None)
    batch, side = shape
    data = dict(type='Noise', size=batch * STEPS, side=side, num_classes=K)
    runner, losses = trajectory(cfg, optim, folder, data, batch, EPOCHS)
    runner.model.load_state_dict(model.state_dict())
    runner.model.double()
    runner.model.teacher.build()
    runner.model.teacher.model.load_state_dict(model.teacher.model.state_dict())
    runner.train()
    return losses, runner.model.model


def optimizer_of(student, lr, decay, exempt=None, decayed=None):
    """AdamW with the parameters as the original groups them."""
    names = [n for n, _ in student.named_parameters() if exempt and exempt in n]
    plain, heavy = param_groups_weight_decay(student, decay, no_weight_decay_list=names)
    if decayed:
        scales = {id(p): p for n, p in student.named_parameters() if n.endswith(decayed)}
        plain['params'] = [p for p in plain['params'] if id(p) not in scales]
        heavy['params'] += scales.values()
    return torch.optim.AdamW([plain, heavy], lr=lr)


def loop(shape, student, teacher, clip=None, warmup_lr=1e-6, late=1, period=EPOCHS, **options):
    """The losses of the original's training; ``student`` is trained."""
    optimizer = optimizer_of(student, **options)
    schedule = CosineLRScheduler(
        optimizer, t_initial=period, lr_min=1e-5, warmup_t=5, warmup_lr_init=warmup_lr
    )
    batch, side = shape
    images = (Noise(batch * STEPS, side, K).images.double() - 120) / 60
    batches = list(zip(images.split(batch), (torch.arange(batch * STEPS) % K).split(batch)))
    losses = []
    for epoch in range(EPOCHS):
        for inputs, target in batches:
            with torch.no_grad():
                answer = teacher(inputs.float())
            logits = student(inputs)
            pair = logits if isinstance(logits, tuple) else (logits, logits)
            loss = reference_loss('hard', pair, target, answer)
            optimizer.zero_grad()
            loss.backward()
            if clip:  # the head too
                dispatch_clip_grad(student.parameters(), clip, mode='agc')
            optimizer.step()
            losses.append(loss.item())
        schedule.step(epoch + 1 - late)
    return losses


@pytest.mark.parametrize('name', SMALL)
def test_fifty_steps_equal_the_originals(name, tmp_path):
    cfg, shape = small(name), SMALL[name][1]
    model = build(cfg.model)
    model.teacher.build()
    student = create_model(cfg.model.model_name, num_classes=K, **SMALL[name][0]).double().train()
    if model.has_two_heads:
        student.set_distilled_training(True)
    student.load_state_dict(model.model.state_dict())
    got, trained = ours(cfg, shape, model, tmp_path)
    expected = loop(shape, student, model.teacher.model.model, **ORIGINALS[name])
    assert len(got) == EPOCHS * STEPS and got[-1] < got[0]
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
    state = trained.state_dict()
    for key, value in student.state_dict().items():
        torch.testing.assert_close(
            state[key], value, rtol=1e-9, atol=1e-9, msg=lambda t, key=key: f'{key}: {t}'
        )
