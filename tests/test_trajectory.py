"""50 training steps against a loop over timm's model, optimizer groups and
schedule, from the same weights and over the same batches. In double precision: with a learning rate so
high the rounding of single precision shows after some steps."""

import pytest
import torch
import torch.nn.functional as F
from conftest import ARCH, Noise, build, config, teacher_cfg, to_timm
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from trainings import trajectory

pytestmark = pytest.mark.usefixtures('quick')
EPOCHS, STEPS, BATCH, K = 10, 5, 8, 5
LR = 1e-2  # high, so that a difference would grow


def student_cfg(mode):
    """The model of a config of the recipe, made small."""
    name = dict(plain='deit_base', hard='deit_base_distilled', soft='deit_base_distilled')[mode]
    cfg = config(name)
    model = cfg.model
    model.backbone.update(arch=ARCH, img_size=32, patch_size=8, drop_path_rate=0.0)
    model.head.update(num_classes=K, in_channels=32)
    model.train_cfg = None  # each side would mix for itself
    model.data_preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
    if mode == 'soft':
        model.head.loss.update(mode='soft', tau=3.0, alpha=0.1)
    if mode != 'plain':
        model.teacher = teacher_cfg(K)
    return cfg


def ours(cfg, weights, teacher, folder):
    optim = cfg.optim_wrapper
    optim.type = 'OptimWrapper'
    del optim['dtype'], optim['loss_scale']
    optim.optimizer.lr = LR
    data = dict(type='Noise', size=BATCH * STEPS, num_classes=K)
    runner, losses = trajectory(cfg, optim.to_dict(), folder, data, BATCH, EPOCHS)
    runner.model.load_state_dict(weights)
    runner.model.double()
    if teacher is not None:
        runner.model.teacher.build()
        runner.model.teacher.model.load_state_dict(teacher)
    runner.train()
    return losses


def reference_loss(mode, out, target, teacher_logits):
    """Written out anew; with one-hot targets, smoothed as the reference's
    mixup does."""
    smooth = F.one_hot(target, K) * 0.9 + 0.1 / K

    def cross_entropy(logits):
        return -(smooth * F.log_softmax(logits, 1)).sum(1).mean()

    if mode == 'plain':
        return cross_entropy(out)
    cls, dist = out
    if mode == 'hard':
        return 0.5 * cross_entropy(cls) + 0.5 * F.nll_loss(F.log_softmax(dist, 1), teacher_logits.argmax(1))
    student, other = (F.log_softmax(z / 3, 1) for z in (dist, teacher_logits))
    divergence = (other.exp() * (other - student)).sum() * 9 / dist.numel()
    return 0.9 * cross_entropy(cls) + 0.1 * divergence


def timms(mode, weights, teacher):
    kwargs = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, mlp_ratio=2, num_classes=K)
    if mode == 'plain':
        model = VisionTransformer(**kwargs)
    else:
        model = VisionTransformerDistilled(**kwargs)
        model.set_distilled_training(True)
    model.load_state_dict(to_timm(weights))
    model.double()
    optimizer = torch.optim.AdamW(
        param_groups_weight_decay(model, 0.05, no_weight_decay_list=('pos_embed', 'cls_token')),
        lr=LR,
    )
    schedule = CosineLRScheduler(optimizer, t_initial=EPOCHS, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6)
    data = Noise(size=BATCH * STEPS, num_classes=K)
    images = (data.images.double() - 120) / 60
    labels = torch.arange(BATCH * STEPS) % K
    losses = []
    for epoch in range(EPOCHS):
        for i in range(0, BATCH * STEPS, BATCH):
            x, y = images[i : i + BATCH], labels[i : i + BATCH]
            with torch.no_grad():
                teacher_logits = None if teacher is None else teacher(x.float())
            loss = reference_loss(mode, model(x), y, teacher_logits)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step(epoch)
    return losses


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['plain', 'hard', 'soft'])
def test_trajectory_equals_timm(mode, tmp_path):
    cfg = student_cfg(mode)
    weights, teacher = build(cfg.model).state_dict(), None
    if mode != 'plain':
        teacher = build(teacher_cfg(K)).eval()
    got = ours(cfg, weights, teacher and teacher.state_dict(), tmp_path)
    expected = timms(mode, weights, teacher and teacher.model)
    assert len(got) == EPOCHS * STEPS
    assert abs(got[-1] - got[0]) > 0.1  # something was learnt
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
