"""LeViT of mmpretrain, mended, against timm's."""

import copy
import pickle

import pytest
import timm
import torch
from conftest import build

K = 5
ARCH = dict(embed_dims=[32, 48, 64], num_heads=[2, 3, 4], depths=[1, 2, 1], key_dims=[8, 8, 8])
BACKBONE = dict(type='TrainableLeViT', arch=ARCH, img_size=64)
HEAD = dict(type='TrainableLeViTClsHead', num_classes=K, in_channels=64)


def ours(backbone=None, **head):
    neck = dict(type='GlobalAveragePooling')
    parts = dict(backbone=dict(BACKBONE, **(backbone or {})), neck=neck, head=dict(HEAD, **head))
    return build(dict(type='DistilledClassifier', **parts))


def timms():
    arch = dict(embed_dim=(32, 48, 64), num_heads=(2, 3, 4), depth=(1, 2, 1), key_dim=8)
    return timm.create_model('levit_128s', num_classes=K, img_size=64, **arch)


def weights(model):
    return {k: v for k, v in model.state_dict().items() if 'bias_idxs' not in k}


def drawn():
    """Our model with weights and statistics of which each matters."""
    model = ours()
    for name, value in weights(model).items():
        if value.is_floating_point():
            value.normal_(std=0.1)
            if name.endswith('running_var') or name.endswith('weight') and value.ndim == 1:
                value.abs_().add_(1)
    return model


def same_as_timms(model):
    """Timm's model with the weights of ours; the parts are in the same order."""
    peer = timms()
    renamed = dict(zip(weights(peer), weights(model).values(), strict=True))
    peer.load_state_dict(renamed, strict=False)
    return peer


def test_a_custom_architecture_is_timms():
    model, images = drawn().eval(), torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), same_as_timms(model).eval()(images))


def test_the_first_weights_are_drawn_as_timms():
    model, peer = ours(), timms()
    model.init_weights()
    drawn, zeros = 0, 0
    for (name, value), expected in zip(weights(model).items(), weights(peer).values(), strict=True):
        if not expected.is_floating_point() or not expected.std() > 0:
            assert torch.equal(value, expected), name
            zeros += name.endswith('bn.weight') and not value.any()
        elif value.numel() > 300:
            assert 0.9 < value.std() / expected.std() < 1.1, name
            drawn += 1
    assert zeros == 10  # an attention and an MLP in 4 blocks, an MLP after 2 downsamplings
    assert drawn > 20
    for layer in (model.head.head.linear, model.head.head_dist.linear):
        assert 0.8 < layer.weight.std() / 0.02 < 1.2 and not layer.bias.any()


def test_mmpretrains_weights_are_loaded_as_they_are():
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='LeViT', arch='128s', img_size=64),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LeViTClsHead', num_classes=K, in_channels=384),
    )
    source = build(cfg)
    model = ours(dict(arch='128s'), in_channels=384)
    model.load_state_dict(source.state_dict())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.eval()(images), source.eval()(images))


def test_deployed_it_gives_the_same():
    model, images = drawn().eval(), torch.randn(2, 3, 64, 64)
    expected = same_as_timms(model).eval()(images)
    merged = copy.deepcopy(model)
    merged.backbone.switch_to_deploy()
    merged.head.switch_to_deploy()
    torch.testing.assert_close(merged(images), expected, atol=1e-4, rtol=1e-4)
    deployed = ours(dict(deploy=True), deploy=True).eval()
    deployed.load_state_dict(merged.state_dict())
    assert not any('bn' in name for name in deployed.state_dict())
    torch.testing.assert_close(deployed(images), expected, atol=1e-4, rtol=1e-4)


def test_weights_loaded_or_cast_in_evaluation_take_effect():
    source, images = drawn().eval(), torch.randn(2, 3, 64, 64)
    model = pickle.loads(pickle.dumps(ours().eval()))
    model.load_state_dict(source.state_dict())
    assert torch.equal(model(images), source(images))
    assert model.double()(images.double()).dtype is torch.float64


@pytest.mark.parametrize(
    'arch',
    [
        dict(embed_dim=[8], num_heads=[1], depth=[1], key_dim=[8]),
        dict(ARCH, depths=[1]),
        dict(ARCH, depths=2),
    ],
)
def test_wrong_architectures(arch):
    with pytest.raises(ValueError, match='is none of a LeViT: give lists embed_dims'):
        build(dict(BACKBONE, arch=arch))
