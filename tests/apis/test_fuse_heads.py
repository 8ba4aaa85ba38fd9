"""Students with two heads as students with one, by mmpretrain's and timm's own classes."""

import copy

import pytest
import timm
import torch
from conftest import ARCH, build
from students import EFFICIENTFORMER, LEVIT, REPVIT, TIMM, V2, K, drawn

from deit_plugin.__main__ import main
from deit_plugin.apis.convert import convert
from deit_plugin.apis.fuse_heads import fuse_heads


def single(cfg):
    cfg = copy.deepcopy(cfg)
    if 'head' in cfg:
        cfg['head']['distillation'] = False
        return build(dict(cfg, type='ImageClassifier'))
    return build(dict(cfg, distillation=False, loss=dict(type='CrossEntropyLoss')))


@pytest.mark.parametrize(
    'cfg, side',
    [(LEVIT, 64), (EFFICIENTFORMER, 224), (REPVIT, 32), (V2, 64)],
    ids=['levit', 'v1', 'repvit', 'v2'],
)
def test_one_head_gives_the_mean_of_both(cfg, side, tmp_path):
    model = drawn(cfg)
    source, target = str(tmp_path / 'two.pth'), str(tmp_path / 'one.pth')
    meta = dict(dataset_meta=dict(classes=list('abcde')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), source)
    assert main(['convert', source, target, '--to', 'mmpretrain', '--fuse-heads']) == 0
    fused = torch.load(target)
    assert fused['meta']['dataset_meta'] == meta['dataset_meta']
    one = single(cfg)
    one.load_state_dict(fused['state_dict'])
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(one.eval()(images), model(images), atol=1e-5, rtol=1e-5)


def test_timm_loads_it(tmp_path):
    model = drawn(REPVIT)
    source, target = str(tmp_path / 'two.pth'), str(tmp_path / 'one.safetensors')
    torch.save(dict(state_dict=model.state_dict()), source)
    convert(source, target, 'timm', fuse_heads=True)
    one = timm.create_model('repvit_m0_9', distillation=False, checkpoint_path=target, **TIMM)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(one.eval()(images), model(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'cfg, to, message',
    [
        (LEVIT, 'timm', '--to timm --fuse-heads: .*two.pth is a student of mmpretrain'),
        (REPVIT, 'transformers', '--to transformers --fuse-heads: .*is a student of timm'),
        (
            dict(
                type='DistilledClassifier',
                backbone=dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, distilled=True),
                neck=dict(type='DistillationTokenNeck'),
                head=dict(type='DeiTDualHead', num_classes=K, in_channels=32),
            ),
            'mmpretrain',
            'read two tokens.*export --head mean',
        ),
        (
            dict(
                type='DistilledTimmClassifier', model_name='pit_ti_distilled_224', num_classes=K, img_size=64
            ),
            'timm',
            'read two tokens.*export --head mean',
        ),
        (
            dict(type='TimmClassifier', model_name='resnet10t', num_classes=K),
            'timm',
            'has no two heads to fuse',
        ),
    ],
)
def test_what_cannot_be_fused(cfg, to, message, tmp_path):
    source, target = tmp_path / 'two.pth', tmp_path / 'one'
    torch.save(dict(state_dict=build(cfg).state_dict()), source)
    with pytest.raises(ValueError, match=message):
        convert(str(source), str(target), to, fuse_heads=True)
    assert not target.exists()


def test_heads_without_biases_and_weights_in_any_layout(tmp_path):
    weights = {name: torch.rand(K, 8) for name in ('head.weight', 'head_dist.weight')}
    fused = fuse_heads(weights, 'a file')
    assert list(fused) == ['head.weight']
    torch.testing.assert_close(fused['head.weight'], sum(weights.values()) / 2)
    model = build(REPVIT).to(memory_format=torch.channels_last)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'two.pth')
    convert(str(tmp_path / 'two.pth'), str(tmp_path / 'one.safetensors'), 'timm', fuse_heads=True)
    assert (tmp_path / 'one.safetensors').exists()
