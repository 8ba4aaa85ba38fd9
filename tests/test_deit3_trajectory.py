"""DeiT III trained by its configs against plain loops of timm's parts, and timm's LAMB against apex' rule, in
double precision."""

from inspect import signature

import pytest
import torch
import torch.nn.functional as F
from conftest import ARCH, NUM_CLASSES, Noise, build, config
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from peers import SMALL_DEIT3
from test_virtual_processes import close, run_of
from timm import create_model
from timm.data.mixup import mixup_target
from timm.loss import SoftTargetCrossEntropy
from timm.optim import Lamb, param_groups_weight_decay
from timm.scheduler import CosineLRScheduler
from trainings import trajectory

from deit_plugin.checkpoints.names import from_mmpretrain

EPOCHS, STEPS, BATCH = 10, 5, 8
# Optimizer, decay, smoothing, and the loss, as facebookresearch/deit at ``7e160fe`` has them.
RECIPES = dict(
    deit3_small=(Lamb, 0.05, 0.0, lambda z, y: F.binary_cross_entropy_with_logits(z, y.gt(0).to(y))),
    deit3_small_384=(torch.optim.AdamW, 0.1, 0.1, SoftTargetCrossEntropy()),
    deit3_small_21k=(Lamb, 0.02, 0.1, SoftTargetCrossEntropy()),
)


SHARES = 1.0, 0.9, 0.3, 0.62, 1e-3  # of the first of two images in each batch; of one, nothing is mixed


def mixed(smoothing=0.0):
    """Labels of which two are mixed (N, K), smoothed in single precision like those of timm's ``Mixup``."""
    one_hot = F.one_hot(torch.arange(BATCH * STEPS) % NUM_CLASSES, NUM_CLASSES).float()
    labels = [s * part + (1 - s) * part.flip(0) for s, part in zip(SHARES, one_hot.split(BATCH))]
    return (torch.cat(labels) * (1 - smoothing) + smoothing / NUM_CLASSES).double()


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_the_labels_are_timms(smoothing):
    parts = (torch.arange(BATCH * STEPS) % NUM_CLASSES).split(BATCH)
    theirs = [mixup_target(part, NUM_CLASSES, share, smoothing) for part, share in zip(parts, SHARES)]
    torch.testing.assert_close(mixed(smoothing), torch.cat(theirs).double(), atol=1e-7, rtol=0)


@DATASETS.register_module()
class MixedNoise(Noise):
    """Random images with mixed labels."""

    def __init__(self):
        super().__init__(BATCH * STEPS)
        self.scores = mixed()

    def __getitem__(self, i):
        return dict(inputs=self.images[i], data_samples=DataSample().set_gt_score(self.scores[i]))


def small(name):
    """The config with its model made small, with nothing that draws."""
    cfg = config(f'deit3/{name}')
    cfg.model.backbone.update(arch=ARCH, img_size=32, patch_size=8, drop_path_rate=0.0)
    cfg.model.head.update(num_classes=NUM_CLASSES, in_channels=ARCH['embed_dims'])
    cfg.model.train_cfg = None
    cfg.model.data_preprocessor = dict(mean=[120.0] * 3, std=[60.0] * 3)
    return cfg


def pair(cfg):
    """A model of the config as it starts, and timm's with the same weights."""
    model = build(cfg.model)
    model.init_weights()
    with torch.device('meta'):
        peer = create_model('deit3_small_patch16_224', num_classes=NUM_CLASSES, **SMALL_DEIT3)
    weights = {name: value.clone() for name, value in from_mmpretrain(model.state_dict(), 'timm').items()}
    peer.load_state_dict(weights, assign=True)
    for p in peer.parameters():
        p.requires_grad_()
    return model.double().train(), peer.double().train()


def ours(cfg, weights, folder):
    """The losses and the weights after our runner has trained it."""
    optim = cfg.optim_wrapper.to_dict()  # on a CPU without mixed precision
    kind = dict(runner_type='mmpretrain.DeiTRunner')
    runner, losses = trajectory(cfg, optim, folder, dict(type='MixedNoise'), BATCH, EPOCHS, **kind)
    runner.model.double().load_state_dict(weights)
    runner.train()
    return losses, runner.model.state_dict()


def loop(name, lr, peer):
    """The losses of the reference's training; ``peer`` is trained."""
    kind, decay, smoothing, loss_of = RECIPES[name]
    groups = param_groups_weight_decay(peer, decay, no_weight_decay_list=('pos_embed', 'cls_token'))
    optimizer = kind(groups, lr=lr, eps=1e-8)
    schedule = CosineLRScheduler(optimizer, t_initial=EPOCHS, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6)
    images = (Noise(BATCH * STEPS).images.double() - 120) / 60
    batches = list(zip(images.split(BATCH), mixed(smoothing).split(BATCH)))
    losses = []
    for epoch in range(EPOCHS):
        for inputs, target in batches:
            loss = loss_of(peer(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step(epoch)
    return losses


@pytest.mark.parametrize('name', RECIPES)
def test_fifty_steps_equal_timm(name, tmp_path, quick):
    cfg = small(name)
    model, peer = pair(cfg)
    start = model.state_dict()
    got, trained = ours(cfg, start, tmp_path)
    expected = loop(name, cfg.optim_wrapper.optimizer.lr, peer)
    assert len(got) == EPOCHS * STEPS and got[-STEPS] < got[0] - 1e-4
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)
    trained = from_mmpretrain(trained, 'timm')
    assert trained.keys() == peer.state_dict().keys()
    for key, value in peer.state_dict().items():
        torch.testing.assert_close(
            trained[key], value, rtol=1e-9, atol=1e-9, msg=lambda t, key=key: f'{key}: {t}'
        )


@pytest.mark.parametrize('name', RECIPES)
def test_loss_and_gradients_of_a_batch_equal_timm(name):
    model, peer = pair(small(name))
    _, _, smoothing, loss_of = RECIPES[name]
    images = torch.randn(BATCH, 3, 32, 32).double()
    target = slice(BATCH, 2 * BATCH)
    samples = [DataSample().set_gt_score(score) for score in mixed()[target]]
    (loss,) = model.loss(images, samples).values()
    expected = loss_of(peer(images), mixed(smoothing)[target])
    loss.backward(), expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    gradients = from_mmpretrain({n: p.grad for n, p in model.named_parameters()}, 'timm')
    for key, p in peer.named_parameters():
        assert p.grad.any(), key
        torch.testing.assert_close(gradients[key], p.grad, rtol=1e-9, atol=1e-14)


def test_cosub_is_the_same_with_any_batch(tmp_path, quick):
    """What each virtual process draws, of augmentation, mixing and both submodels, goes with it."""
    cfg = small('deit3_small_cosub')
    cfg.model.backbone.update(drop_path_rate=0.5, layer_scale_init_value=0.5)
    cfg.model.train_cfg = config('deit3/deit3_small_cosub').model.train_cfg
    cfg.model.data_preprocessor.update(
        type='DeiTDataPreprocessor', num_classes=NUM_CLASSES, three_augment=dict()
    )
    model = cfg.model.to_dict()
    whole = run_of(model, tmp_path / 'whole', batch_size=8)
    close(whole, run_of(model, tmp_path / 'parts', batch_size=2))
    assert whole['meta']['accumulated'] == 1
    start = build(model).state_dict()['backbone.layers.0.attn.gamma1.weight']
    assert not torch.equal(whole['state_dict']['backbone.layers.0.attn.gamma1.weight'], start)


# LAMB


def apex_lamb(groups, gradients, states, step, lr, eps=1e-8, beta1=0.9, beta2=0.999, max_norm=1.0):
    """A step by the rule of apex' FusedLAMB with its defaults (fused_lamb.py, multi_tensor_lamb.cu)."""
    total = sum(float(g.square().sum()) for g in gradients) ** 0.5
    factor = max_norm / total if total > max_norm else 1.0
    gradients = iter(gradients)
    for params, decay in groups:
        for p in params:
            g = next(gradients) * factor
            m, v = states.setdefault(id(p), (torch.zeros_like(p), torch.zeros_like(p)))
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            states[id(p)] = m, v
            update = m / (1 - beta1**step) / ((v / (1 - beta2**step)).sqrt() + eps) + decay * p
            norms = p.square().sum().sqrt(), update.square().sum().sqrt()
            ratio = norms[0] / norms[1] if decay and all(norm != 0 for norm in norms) else 1.0
            p.sub_(lr * ratio * update)


# timm 1.0.12 has one way alone.
WAYS = [dict(foreach=way) for way in (False, True)] if 'foreach' in signature(Lamb).parameters else [{}]


@pytest.mark.parametrize('way', WAYS)
def test_lamb_of_timm_is_that_of_apex(way):
    """Of two groups, with gradients above and below the norm of 1, and weights and gradients of 0."""
    shapes = [(4, 3), (7,), (2, 3, 2)], [(5,), (3, 4)]
    weights = [[torch.randn(shape).double() for shape in group] for group in shapes]
    weights[0][1].zero_()
    copies = [[p.clone().requires_grad_() for p in group] for group in weights]
    decays = 0.05, 0.0
    options = config('deit3/deit3_small').optim_wrapper.optimizer.to_dict()
    assert options.pop('type') == 'timm.optim.Lamb' and options.pop('weight_decay') == decays[0]
    groups = [dict(params=params, weight_decay=decay) for params, decay in zip(copies, decays)]
    optimizer = Lamb(groups, **way, **options)
    states, norms = {}, []
    for step in range(1, 31):
        gradients = [torch.randn_like(p) * (10.0 if step % 3 else 0.1) for group in weights for p in group]
        gradients[2].zero_()
        norms.append(torch.cat([g.flatten() for g in gradients]).norm())
        for p, g in zip([p for group in copies for p in group], gradients):
            p.grad = g.clone()
        optimizer.param_groups[0]['lr'] = optimizer.param_groups[1]['lr'] = lr = options['lr'] * (1 + step)
        optimizer.step()
        apex_lamb(list(zip(weights, decays)), gradients, states, step, lr)
    assert min(norms) < 1 < max(norms)
    for mine, theirs in zip(weights, copies):
        for expected, p in zip(mine, theirs):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-9, atol=1e-12)


def test_lamb_clips_what_loss_scaling_has_unscaled():
    """In float16 too the norm of 1 is that of the gradients themselves."""
    layers = [torch.nn.Linear(4, 3) for _ in 'ab']
    layers[1].load_state_dict(layers[0].state_dict())
    x, scaler = torch.randn(8, 4), torch.amp.GradScaler('cpu', init_scale=2.0**16)
    optimizers = [Lamb(layer.parameters(), weight_decay=0.05) for layer in layers]
    for factor in (1.0, 1e-3, 10.0):  # from one step to the next the norm's share counts
        losses = [layer(x).square().sum() * factor for layer in layers]
        for optimizer in optimizers:
            optimizer.zero_grad()
        losses[0].backward(), optimizers[0].step()
        scaler.scale(losses[1]).backward(), scaler.step(optimizers[1]), scaler.update()
    assert torch.equal(layers[0].weight, layers[1].weight)
