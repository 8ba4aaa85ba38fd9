"""The loss against its formula, written out with numpy in float64."""

import numpy as np
import pytest
import torch
from conftest import build
from timm.data.mixup import Mixup

B, K, SMOOTHING = 6, 7, 0.1


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def one_hot(index):
    return np.eye(K)[index]


def base_formula(z, y):
    """Cross-entropy with label smoothing, and its gradient."""
    y = y * (1 - SMOOTHING) + SMOOTHING / K
    value = -(y * log_softmax(z)).sum() / B
    return value, (np.exp(log_softmax(z)) - y) / B


def distill_formula(z, teacher, mode, tau, count):
    if mode == 'hard':
        y = one_hot(teacher.argmax(axis=1))
        value = -(y * log_softmax(z)).sum() / B
        return value, (np.exp(log_softmax(z)) - y) / B
    log_t, log_s = log_softmax(teacher / tau), log_softmax(z / tau)
    value = (np.exp(log_t) * (log_t - log_s)).sum() * tau**2 / count
    return value, (np.exp(log_s) - np.exp(log_t)) * tau / count


def soft_targets():
    """Targets as timm's mixup makes them, without its smoothing."""
    np.random.seed(0)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=K)
    labels = torch.arange(B) % K
    _, target = mixup(torch.zeros(B, 3, 8, 8), labels)
    return target.double()


@pytest.fixture
def logits():
    return [torch.randn(B, K, dtype=torch.double) * 3 for _ in range(3)]


def total_of(losses):
    return sum(value for name, value in losses.items() if 'loss' in name)


def check(losses, leaf, value, gradient):
    total = total_of(losses)
    assert abs(total.item() - value) < 1e-6
    (grad,) = torch.autograd.grad(total, leaf, retain_graph=True)
    np.testing.assert_allclose(grad.numpy(), gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize('targets', ['hard', 'soft'])
@pytest.mark.parametrize(
    'mode, tau, reduction',
    [
        ('hard', 1.0, 'mean'),
        ('soft', 1.0, 'mean'),
        ('soft', 3.0, 'mean'),
        ('soft', 3.0, 'batchmean'),
    ],
)
@pytest.mark.parametrize('token', ['dist', 'cls'])
def test_formula(logits, targets, mode, tau, reduction, token):
    alpha = 0.3
    loss = build(
        dict(
            type='DistillationLoss',
            mode=mode,
            alpha=alpha,
            tau=tau,
            soft_reduction=reduction,
            distill_on=token,
        )
    )
    cls, dist, teacher = logits
    cls.requires_grad_(), dist.requires_grad_()
    target = torch.arange(B) % K if targets == 'hard' else soft_targets()
    y = one_hot(target.numpy()) if targets == 'hard' else target.numpy()
    # mmpretrain's base losses turn targets into float32
    base, base_grad = base_formula(cls.detach().numpy(), y)
    count = B * K if reduction == 'mean' else B
    student = dist if token == 'dist' else cls
    extra, extra_grad = distill_formula(student.detach().numpy(), teacher.numpy(), mode, tau, count)

    losses = loss((cls, dist) if token == 'dist' else cls, target, teacher)
    accuracies = dict(cls_acc=cls, dist_acc=dist) if token == 'dist' else dict(cls_acc=cls)
    assert set(losses) == {'loss_cls', 'loss_distill', 'teacher_acc', 'teacher_agreement', *accuracies}
    for name, own in accuracies.items():
        right = own.argmax(1).numpy() == y.argmax(1)
        assert losses[name] == 100 * right.mean().astype('float32')
    choice = teacher.argmax(1)
    assert losses['teacher_acc'] == 100 * (choice.numpy() == y.argmax(1)).mean().astype('float32')
    mean = cls + dist if token == 'dist' else cls
    assert losses['teacher_agreement'] == 100 * (choice == mean.argmax(1)).float().mean()
    assert abs(losses['loss_cls'].item() - (1 - alpha) * base) < 1e-6
    value = (1 - alpha) * base + alpha * extra
    if token == 'dist':
        check(losses, cls, value, (1 - alpha) * base_grad)
        check(losses, dist, value, alpha * extra_grad)
    else:
        check(losses, cls, value, (1 - alpha) * base_grad + alpha * extra_grad)


def test_mode_none_is_the_base_loss_unweighted(logits):
    cls, dist, teacher = (z.requires_grad_() for z in logits)
    loss = build(dict(type='DistillationLoss', mode='none', alpha=0.9))
    target = torch.arange(B) % K
    value, gradient = base_formula(cls.detach().numpy(), one_hot(target.numpy()))
    for given in (cls, (cls, dist)):
        losses = loss(given, target)
        assert set(losses) == {'loss_cls'}
        check(losses, cls, value, gradient)
    (gradient,) = torch.autograd.grad(losses['loss_cls'], dist, allow_unused=True)
    assert gradient is None  # as in the reference, so that nothing is decayed


def test_soft_reductions_differ_by_the_number_of_classes(logits):
    cls, dist, teacher = logits
    values = [
        build(dict(type='DistillationLoss', mode='soft', soft_reduction=r))(
            (cls, dist), torch.arange(B), teacher
        )['loss_distill']
        for r in ('batchmean', 'mean')
    ]
    torch.testing.assert_close(values[0], values[1] * K)


def test_soft_loss_equals_timm(logits):
    """timm's task, the same weights on both parts, divides by the batch."""
    from timm.task import TokenDistillationTask

    cls, dist, teacher = (z.float() for z in logits)

    class Fixed(torch.nn.Module):
        def __init__(self, out):
            super().__init__()
            self.out, self.num_classes, self.in_chans = out, K, 3
            self.pretrained_cfg = dict(mean=(0.0,) * 3, std=(1.0,) * 3)

        def set_distilled_training(self, enable):
            pass

        def forward(self, x):
            return self.out

    for mode in ('soft', 'hard'):
        task = TokenDistillationTask(
            Fixed((cls, dist)),
            Fixed(teacher),
            criterion=torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING),
            distill_type=mode,
            task_loss_weight=0.7,
            temperature=3.0,
            verbose=False,
        )
        expected = task(torch.zeros(B, 3, 8, 8), torch.arange(B))['loss']
        losses = build(
            dict(type='DistillationLoss', mode=mode, alpha=0.3, tau=3.0, soft_reduction='batchmean')
        )((cls, dist), torch.arange(B), teacher)
        torch.testing.assert_close(total_of(losses), expected)


def test_any_base_loss_of_mmpretrain(logits):
    cls, dist, teacher = (z.float() for z in logits)
    for cfg in (dict(type='CrossEntropyLoss'), dict(type='FocalLoss')):
        target = torch.arange(B) % K
        if cfg['type'] == 'FocalLoss':
            target = torch.nn.functional.one_hot(target, K)
        expected = build(cfg)(cls, target, avg_factor=B)
        loss = build(dict(type='DistillationLoss', base_loss=cfg, alpha=0.25))
        got = loss((cls, dist), target, teacher)['loss_cls']
        torch.testing.assert_close(got, 0.75 * expected)


def test_half_precision_is_computed_in_full(logits):
    cls, dist, teacher = (z.bfloat16() for z in logits)
    loss = build(dict(type='DistillationLoss', mode='soft', tau=3.0))
    target = torch.arange(B)
    half = loss((cls, dist), target, teacher)
    full = loss((cls.float(), dist.float()), target, teacher.float())
    torch.testing.assert_close(half, full)


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(mode='medium'), "mode='medium' is unknown.*'soft'"),
        (dict(alpha=1.5), r'alpha=1.5 is not in \[0, 1\]'),
        (dict(tau=0.0), 'tau=0.0 is not above 0'),
        (dict(soft_reduction='sum'), "soft_reduction='sum'"),
        (dict(distill_on='patches'), "distill_on='patches'"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(dict(type='DistillationLoss', **kwargs))


def test_wrong_logits(logits):
    cls, dist, teacher = logits
    loss, target = build(dict(type='DistillationLoss')), torch.arange(B)
    with pytest.raises(ValueError, match="mode='hard'.*needs a teacher"):
        loss((cls, dist), target)
    with pytest.raises(ValueError, match='no distillation head'):
        loss(cls, target, teacher)
    with pytest.raises(ValueError, match=r'\(6, 5\).*student \(6, 7\)'):
        loss((cls, dist), target, teacher[:, :5])
