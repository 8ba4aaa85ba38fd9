"""Masked-image pre-training: against transformers, and into fine-tuning."""

import copy
import logging
import re

import numpy as np
import pytest
import torch
from conftest import ARCH, NUM_CLASSES, build, make_batch, shuffle_weights
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.registry import HOOKS, TRANSFORMS

CONFIG = 'configs/deit_base_simmim.py'
DISTILLED = pytest.mark.parametrize('distilled', [False, True])

# Our names in transformers 5.23; it has a projection each for q, k and v.
TO_TRANSFORMERS = [
    (r'^neck\.', ''),
    (r'^backbone\.ln1\.', 'deit.layernorm.'),
    (r'^backbone\.(cls_token|mask_token)', r'deit.embeddings.\1'),
    (r'^backbone\.dist_token', 'deit.embeddings.distillation_token'),
    (r'^backbone\.pos_embed', 'deit.embeddings.position_embeddings'),
    (r'^backbone\.patch_embed', 'deit.embeddings.patch_embeddings'),
    (r'^backbone\.layers', 'deit.layers'),
    (r'\.ln1\.', '.layernorm_before.'),
    (r'\.ln2\.', '.layernorm_after.'),
    (r'\.attn\.proj\.', '.attention.o_proj.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
]


def to_transformers(state_dict):
    renamed = {}
    for name, value in state_dict.items():
        for pattern, new in TO_TRANSFORMERS:
            name = re.sub(pattern, new, name)
        if '.attn.qkv.' in name:
            for part, third in zip('qkv', value.chunk(3)):
                renamed[name.replace('attn.qkv', f'attention.{part}_proj')] = third
        else:
            renamed[name] = value
    return renamed


def backbone(type_='MaskedDeiT', **kwargs):
    return build(dict(type=type_, arch=ARCH, img_size=32, patch_size=8) | kwargs)


def simmim(distilled):
    loss = dict(type='PixelReconstructionLoss', criterion='L1', channel=3)
    return build(
        dict(
            type='SimMIM',
            backbone=dict(type='MaskedDeiT', arch=ARCH, distilled=distilled, img_size=32, patch_size=8),
            neck=dict(type='SimMIMLinearDecoder', in_channels=32, encoder_stride=8),
            head=dict(type='SimMIMHead', patch_size=8, loss=loss),
            data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
        )
    )


def masked_batch(mask):
    batch = make_batch(len(mask))
    for sample, its_mask in zip(batch['data_samples'], mask):
        sample.mask = its_mask
    return batch


def some_mask(size=4, grid=(4, 4)):
    mask = torch.zeros(size, *grid, dtype=torch.int64)
    mask.view(size, -1)[:, [0, 1, 3, 6]] = 1
    mask[0, 0, 0] = 0  # the images differ, and in how much is masked
    return mask


@pytest.mark.parametrize('dtype', [torch.bool, torch.int64, torch.float32])
def test_loss_and_gradients_equal_transformers(dtype):
    transformers = pytest.importorskip('transformers', minversion='5.23.0')
    ours = shuffle_weights(simmim(distilled=True))
    theirs = transformers.DeiTForMaskedImageModeling(
        transformers.DeiTConfig(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=64,
            image_size=32,
            patch_size=8,
            encoder_stride=8,
            layer_norm_eps=1e-6,
        )
    )  # its default is 1e-12, DeiT has 1e-6
    theirs.load_state_dict(to_transformers(ours.state_dict()))
    mask = some_mask()
    data = ours.data_preprocessor(masked_batch(mask.to(dtype)), training=True)
    loss = ours(**data, mode='loss')['loss']
    expected = theirs(data['inputs'], bool_masked_pos=mask.flatten(1).bool()).loss
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    assert loss > 0.1  # or the comparison would mean little

    loss.backward()
    expected.backward()
    gradients = to_transformers({k: v.grad for k, v in ours.named_parameters()})
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_loss_without_a_masked_patch_is_nan():
    """mmpretrain divides by the masked pixels alone; transformers has 0."""
    data = masked_batch(torch.zeros(2, 4, 4))
    model = simmim(distilled=False)
    data = model.data_preprocessor(data, training=True)
    assert model(**data, mode='loss')['loss'].isnan()


@DISTILLED
def test_loss_by_hand(distilled):
    """The mean L1 over the masked pixels and the three channels."""
    model = simmim(distilled).eval()
    mask = some_mask()
    data = model.data_preprocessor(masked_batch(mask), training=True)
    image = model.neck(model.backbone(data['inputs'], mask)[0])
    error = (image - data['inputs']).abs()
    pixels = mask.bool().repeat_interleave(8, 1).repeat_interleave(8, 2)
    expected = error.permute(0, 2, 3, 1)[pixels].mean()
    torch.testing.assert_close(model(**data, mode='loss')['loss'], expected)


@DISTILLED
def test_masked_pixels_are_not_seen(distilled):
    """In a map that is not square, so that a swapped axis shows."""
    model = backbone(distilled=distilled, img_size=(16, 32)).eval()
    mask = some_mask(2, (2, 4))
    pixels = mask.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    images = torch.randn(2, 3, 16, 32)
    (featmap,) = model(images, mask)
    assert featmap.shape == (2, 32, 2, 4)
    (hidden_changed,) = model(images + pixels, mask)
    assert torch.equal(featmap, hidden_changed)
    (visible_changed,) = model(images + 1 - pixels, mask)
    assert not torch.allclose(featmap, visible_changed, atol=1e-3)
    for dtype in (torch.bool, torch.uint8, torch.float32):
        assert torch.equal(featmap, model(images, mask.to(dtype))[0])


@DISTILLED
def test_mask_token_replaces_the_patch_before_positions(distilled):
    """A patch that embeds to the mask token is as good as a masked one."""
    model = backbone(distilled=distilled).eval()
    images, mask = torch.randn(2, 3, 32, 32), torch.ones(2, 4, 4)
    (featmap,) = model(images, mask)
    projection = model.patch_embed.projection
    torch.nn.init.zeros_(projection.weight)
    projection.bias.data = model.mask_token.data.flatten()
    torch.testing.assert_close(featmap, model(images)[0])
    assert featmap.std((2, 3)).min() > 0.01  # the positions are still there


@DISTILLED
@pytest.mark.parametrize('out_type', ['featmap', 'cls_token'])
def test_without_a_mask_it_is_the_plain_model(distilled, out_type):
    kwargs = dict(distilled=distilled, out_type=out_type)
    masked = shuffle_weights(backbone(**kwargs)).eval()
    plain = backbone('DeiT', **kwargs).eval()
    plain.load_state_dict(masked.state_dict())  # strict, and yet it loads
    images = torch.randn(2, 3, 32, 32)
    for out in (masked(images), masked(images, None)):
        torch.testing.assert_close(out, plain(images), atol=0, rtol=0)


@pytest.mark.parametrize('shape', [(2, 4, 2), (1, 4, 4), (2, 16), (2, 32, 32)])
def test_mask_of_the_wrong_shape(shape):
    message = re.escape(f'mask {shape} is not (2, 4, 4)')
    with pytest.raises(ValueError, match=message):
        backbone()(torch.randn(2, 3, 32, 32), torch.ones(shape))
    with pytest.raises(ValueError, match='image .* is not a multiple'):
        backbone()(torch.randn(2, 3, 30, 32), torch.ones(2, 4, 4))


def test_mask_token_is_drawn_like_the_other_tokens(tmp_path):
    wide = dict(ARCH, embed_dims=1024, num_layers=1)
    model = backbone(arch=wide)
    before = model.mask_token.clone()
    for _ in range(2):
        assert model.mask_token.shape == (1, 1, 1024)
        assert abs(model.mask_token.std() - 0.02) < 2e-3
        model.init_weights()
    assert not torch.equal(before, model.mask_token)

    torch.save(model.state_dict(), tmp_path / 'backbone.pth')
    again = backbone(arch=wide, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth')))
    again.init_weights()
    assert torch.equal(model.mask_token, again.mask_token)


def test_layer_depth_and_frozen_stages():
    model = backbone(frozen_stages=0)
    assert model.get_layer_depth('backbone.mask_token', 'backbone.') == (0, 5)
    assert model.get_layer_depth('cls_token') == (0, 5)
    assert model.mask_token.requires_grad and not model.cls_token.requires_grad


@DISTILLED
def test_a_pre_trained_checkpoint_fine_tunes_the_plain_model(distilled, tmp_path, caplog, monkeypatch):
    pretrained = shuffle_weights(simmim(distilled))
    path = str(tmp_path / 'simmim.pth')
    torch.save(dict(state_dict=pretrained.state_dict()), path)
    model = build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='DeiT',
                arch=ARCH,
                img_size=48,
                patch_size=8,
                init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
            ),
            head=dict(type='VisionTransformerClsHead', num_classes=NUM_CLASSES, in_channels=32),
        )
    )
    model.init_weights()
    expected = backbone('DeiT', img_size=48)
    monkeypatch.setattr(
        'deit_plugin.models.state_dict.print_log',
        lambda text, logger: logging.getLogger(__name__).warning(text),
    )
    load_state_dict(expected, pretrained.backbone.state_dict())
    assert 'mask_token is left out: only MaskedDeiT has one' in caplog.text
    for name, value in expected.state_dict().items():
        assert torch.equal(value, model.backbone.state_dict()[name]), name
        if 'layers.' in name:
            assert torch.equal(value, pretrained.state_dict()[f'backbone.{name}'])


def test_a_plain_checkpoint_starts_the_pre_training():
    plain, masked = shuffle_weights(backbone('DeiT')), backbone()
    token = masked.mask_token.clone()
    load_state_dict(masked, plain.state_dict())
    assert torch.equal(masked.mask_token, token)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, masked.state_dict()[name])
    with pytest.raises(RuntimeError, match='Missing.*"mask_token"'):
        masked.load_state_dict(plain.state_dict())


def tiny_config():
    """The config with a small encoder; the rest is as it is."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.arch = ARCH
    cfg.model.neck.in_channels = ARCH['embed_dims']
    cfg.model.data_preprocessor = cfg.data_preprocessor
    return cfg


def test_config_is_deit_base():
    with torch.device('meta'):
        model = build(Config.fromfile(CONFIG).model)
    sizes = {k: v.numel() for k, v in model.named_parameters()}
    assert (
        sum(v for k, v in sizes.items() if k.startswith('neck')) == 768 * 768 + 768
    )  # a linear layer from 768 to 16 x 16 x 3 pixels
    # timm's deit_base has 86,567,656, of them 769,000 in its head
    assert sum(v for k, v in sizes.items() if k.startswith('backbone')) == 86_567_656 - 769_000 + 768


def test_config_trains():
    cfg = tiny_config()
    pipeline = Compose([TRANSFORMS.build(t) for t in cfg.train_pipeline[1:]])
    assert cfg.train_dataloader.dataset.pipeline == cfg.train_pipeline
    batch = default_collate(
        [pipeline(dict(img=np.random.randint(0, 256, (240, 260, 3), np.uint8))) for _ in range(2)]
    )
    for sample in batch['data_samples']:
        assert sample.mask.shape == (14, 14)
        blocks = sample.mask.view(7, 2, 7, 2)  # of 32 x 32 pixels
        assert torch.equal(blocks.amin((1, 3)), blocks.amax((1, 3)))
        assert blocks.amax((1, 3)).sum() == 30  # 49 * .6, rounded up

    model = build(cfg.model)
    model.init_weights()
    optim = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    before = copy.deepcopy(model.state_dict())
    losses = [model.train_step(batch, optim)['loss'] for _ in range(3)]
    assert losses[-1] < losses[0]
    for name, value in model.state_dict().items():
        assert not torch.equal(value, before[name]), name
    assert model.extract_feat(torch.randn(1, 3, 224, 224))[0].shape == (1, 32, 14, 14)


def test_config_decays_what_simmim_decays():
    cfg = tiny_config()
    model = build(cfg.model)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        wrapper = build_optim_wrapper(model, {**cfg.optim_wrapper, 'type': 'OptimWrapper'})
    assert len(wrapper.optimizer.param_groups) == 2
    plain = {id(p) for group in wrapper.param_groups if group['weight_decay'] == 0 for p in group['params']}
    for name, parameter in model.named_parameters():
        spared = parameter.ndim == 1 or name in ('backbone.cls_token', 'backbone.pos_embed')
        assert (id(parameter) in plain) == spared, name


def test_config_schedule():
    cfg = Config.fromfile(CONFIG)
    optimizer = torch.optim.AdamW(
        [torch.zeros(1)], **{k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != 'type'}
    )
    warmup, steps = copy.deepcopy(cfg.param_scheduler)
    assert warmup.pop('convert_to_iter_based')
    per_epoch = 2
    warmup = PARAM_SCHEDULERS.get(warmup.pop('type')).build_iter_from_epoch(
        optimizer, epoch_length=per_epoch, **warmup
    )
    steps = PARAM_SCHEDULERS.build(steps, default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        for _ in range(per_epoch):
            optimizer.step()
            warmup.step()
        steps.step()
    assert rates[0] == pytest.approx(5e-7 * 4)  # scaled to a batch of 2048
    assert rates[9] < rates[10] == pytest.approx(4e-4)
    assert rates[699] == pytest.approx(4e-4)
    assert rates[700] == rates[799] == pytest.approx(4e-5)


def test_config_keeps_the_results_safe():
    cfg = Config.fromfile(CONFIG)
    hooks = cfg.default_hooks
    checkpoint = HOOKS.build(hooks.checkpoint)
    assert type(checkpoint).__name__ == 'AtomicCheckpointHook'
    assert (checkpoint.interval, checkpoint.max_keep_ckpts) == (1, 3)
    assert hooks.finite_loss == dict(type='FiniteLossHook')
    assert hooks.seed == dict(type='SeedHook')
    assert cfg.randomness == dict(seed=0, deterministic=False)
