"""Adaptive gradient clipping against timm's, to the bit."""

import contextlib
import copy

import pytest
import torch
from conftest import build
from mmengine.optim import build_optim_wrapper
from mmengine.optim.optimizer import amp_optimizer_wrapper
from timm.models import model_parameters
from timm.utils import dispatch_clip_grad

pytestmark = pytest.mark.usefixtures('quick')
SGD = dict(type='SGD', lr=0.5)
LEVIT = dict(
    type='DistilledClassifier',
    backbone=dict(type='VisionTransformer', arch=dict(embed_dims=8, num_layers=1, num_heads=2,
                  feedforward_channels=16), img_size=16, patch_size=8, out_type='cls_token'),
    head=dict(type='LeViTClsHead', num_classes=5, in_channels=8, loss=dict(type='DistillationLoss')),
)  # fmt: skip


def wrap(model, clip, **options):
    cfg = dict(constructor='mmpretrain.GroupedOptimWrapperConstructor', optimizer=SGD, clip_grad=clip)
    return build_optim_wrapper(model, dict(cfg, **options))


def loss_of(model, i, big=30.0):
    generator = torch.Generator().manual_seed(i)
    images = torch.randn(4, 3, 16, 16, generator=generator)
    return big * sum(logits.square().mean() for logits in model.train()(images))


def timms_step(model, optimizer, losses, clip_factor, exclude):
    """As the training code of LeViT, EfficientFormer and RepViT does it."""
    optimizer.zero_grad()
    for loss in losses:
        (loss / len(losses)).backward()
    dispatch_clip_grad(model_parameters(model, exclude_head=exclude), clip_factor, mode='agc')
    optimizer.step()


@pytest.mark.parametrize('exclude', [True, False])
@pytest.mark.parametrize('count', [1, 2])
def test_steps_equal_timms(count, exclude):
    model = build(LEVIT)
    other, plain = copy.deepcopy(model), copy.deepcopy(model)
    options = {} if exclude else dict(exclude_head=False)
    wrapper = wrap(model, dict(type='agc', clip_factor=0.02, **options), accumulative_counts=count)
    unclipped = wrap(plain, None, accumulative_counts=count)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.5, fused=True)
    for i in range(3):
        for k in range(count):
            wrapper.update_params(loss_of(model, i * count + k))
            unclipped.update_params(loss_of(plain, i * count + k))
        losses = [loss_of(other, i * count + k) for k in range(count)]
        timms_step(other, optimizer, losses, 0.02, exclude)
    for (name, p), expected in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(p, expected), name
    assert any(not torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters()))


def test_the_head_is_what_the_originals_exclude():
    model = build(LEVIT)
    wrapper = wrap(model, dict(type='agc'))
    left = [n for n, p in model.named_parameters() if id(p) not in wrapper.clip_func.clipped]
    assert left == ['head.head_dist.linear.weight', 'head.head_dist.linear.bias']


def test_mixed_precision_clips_what_is_unscaled(monkeypatch):
    """On the CPU, for which torch has a scaler and mmengine has not."""
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, 'GradScaler', lambda **kw: torch.amp.GradScaler('cpu', **kw))
    monkeypatch.setattr('deit_plugin.engine.optimizers.get_device', lambda: 'cuda')
    model = build(LEVIT)
    other = copy.deepcopy(model)
    scale = dict(init_scale=1024.0)  # a power of two: unscaling is exact
    wrapper = wrap(model, dict(type='agc', clip_factor=0.02), type='AmpOptimWrapper', loss_scale=scale)
    monkeypatch.setattr(wrapper, 'optim_context', lambda model: contextlib.nullcontext())
    optimizer = torch.optim.SGD(other.parameters(), lr=0.5, fused=True)
    for i in range(3):
        wrapper.update_params(loss_of(model, i))
        timms_step(other, optimizer, [loss_of(other, i)], 0.02, True)
    for (name, p), expected in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(p, expected), name


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(clip_factor=0), r'clip_factor=0\) is no number above 0'),
        (dict(clip_factor='a'), r"clip_factor='a'\) is no number above 0"),
        (dict(eps=-1.0), r'eps=-1.0\) is no number above 0'),
        (dict(max_norm=1.0), r"no option \['max_norm'\]: choose from \['clip_factor', 'eps'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        wrap(build(LEVIT), dict(type='agc', **options))


def test_mmengines_own_ways_stay():
    assert wrap(build(LEVIT), dict(max_norm=1.0)).clip_func is torch.nn.utils.clip_grad_norm_
    assert wrap(build(LEVIT), None).clip_grad_kwargs is None
