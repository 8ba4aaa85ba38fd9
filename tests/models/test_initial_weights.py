"""With which weights a student of a config starts: by the rules of the original repositories, at the commits
that the configs name, whoever draws them here."""

import re

import pytest
import torch
import torch.nn as nn
from conftest import build, config

K = 5
NARROW = dict(embed_dims=(24, 32, 48, 64), depths=(1, 1, 1, 2), num_vit=1)
SMALL = dict(
    levit_128s=dict(img_size=64, embed_dim=(32, 48, 64), num_heads=(2, 3, 4), depth=(1, 1, 1), key_dim=16),
    efficientformer_l1=NARROW,
    efficientformerv2_s0=dict(NARROW, img_size=64),
    repvit_m0_9=dict(embed_dim=(24, 32, 48, 64), depth=(1, 1, 2, 1)),
    fastvit_sa12=dict(embed_dims=(24, 48, 96, 96), layers=(1, 1, 1, 1)),
)
# Drawn at a deviation of 0.02, with biases of 0. All other layers are as torch draws them.
NORMAL = dict(
    levit_128s=r'^head(_dist)?\.linear$',
    efficientformer_l1=r'^head(_dist)?$|token_mixer|mlp\.fc\d$',
    efficientformerv2_s0=r'^head(_dist)?$|mlp\.fc\d\.conv$',
    repvit_m0_9=r'^head\.head(_dist)?\.l$',
    fastvit_sa12=r'^head\.fc$|token_mixer\.(qkv|proj)$|mlp\.(conv\.conv|fc\d)$',
)
# The last norm of each residual starts at 0.
ZERO = dict(
    levit_128s=r'attn\.proj\.ln\.bn$|mlp\.ln2\.bn$',
    repvit_m0_9=r'channel_mixer\.(fc2|conv2)\.bn$|ffn\.conv2\.bn$',
)


def small(name, **changes):
    model = config(f'students/{name}').model
    model.update(SMALL[name], num_classes=K, **changes)
    model.teacher = None
    model.loss = dict(type='CrossEntropyLoss')
    return model


def check(model, drawn, zeros='$^'):
    """Which layers are drawn by whom; counts them."""
    counts = dict(normal=0, own=0, zero=0)
    for key, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            normal = bool(re.search(drawn, key))
            fan_in = layer.weight[0].numel()
            std = 0.02 if normal else (3 * fan_in) ** -0.5  # uniform up to fan_in ** -0.5
            if layer.weight.numel() > 300:
                assert layer.weight.std().item() / std == pytest.approx(1, abs=0.15), key
            if layer.bias is not None:
                assert bool(layer.bias.any()) is not normal, key
            counts['normal' if normal else 'own'] += 1
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm):
            zero = bool(re.search(zeros, key))
            assert (layer.weight == 1 - zero).all() and not layer.bias.any(), key
            counts['zero'] += zero
    for key, value in model.named_parameters():
        if 'attention_biases' in key:
            assert not value.any()
        elif re.search(r'\.gamma$|\.ls\d\.', key):
            assert (value == 1e-5).all(), key
    return counts


@pytest.mark.parametrize('name', SMALL)
def test_layers_start_as_in_the_original(name):
    student = build(small(name))
    student.init_weights()
    counts = check(student.model, NORMAL[name], ZERO.get(name, '$^'))
    assert counts['normal'] > 1 and counts['own'] > 4 and (counts['zero'] > 4) is (name in ZERO)


MMPRETRAINS = dict(
    type='DistilledClassifier',
    backbone=dict(
        type='EfficientFormer',
        arch=dict(
            layers=[1, 1, 1, 2],
            embed_dims=[24, 32, 48, 64],
            downsamples=[False, True, True, True],
            vit_num=1,
        ),
    ),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='EfficientFormerClsHead', num_classes=K, in_channels=64, init_cfg=None),
    init_cfg=[  # as docs/students.md has it
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='NamedTruncNormal', layer='Conv2d', names=r'\.mlp\.fc\d', std=0.02),
    ],
)


def test_mmpretrains_efficientformer_starts_so_too():
    model = build(MMPRETRAINS)
    model.init_weights()
    # Stem and downsampling stay mmpretrain's own.
    blocks = [m for key, m in model.backbone.named_modules() if re.search(r'\.(token_mixer|mlp)$', key)]
    counts = check(nn.ModuleList([*blocks, model.head]), '.')
    assert counts == dict(normal=2 * 5 + 2 + 2, own=0, zero=0)


def test_pretrained_weights_are_not_drawn_over(tmp_path):
    source = build(small('efficientformer_l1'))
    torch.save(source.model.state_dict(), tmp_path / 'weights.pth')
    student = build(small('efficientformer_l1', checkpoint_path=str(tmp_path / 'weights.pth')))
    student.init_weights()
    for key, value in source.model.state_dict().items():
        assert torch.equal(student.model.state_dict()[key], value), key


def test_a_name_that_no_layer_has():
    cfg = small('repvit_m0_9', init_cfg=dict(type='NamedTruncNormal', names='mlp', std=0.02))
    with pytest.raises(
        ValueError, match="names='mlp'.*: no module of DistilledTimmClassifier has such a name"
    ):
        build(cfg).init_weights()
