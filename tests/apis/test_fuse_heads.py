"""Students with two heads as students with one, by mmpretrain's and timm's own classes."""

import copy

import pytest
import timm
import torch
from conftest import ARCH, build
from students import CLASSES, EFFICIENTFORMER, LEVIT, LEVITS, REPVIT, TIMM, TIMM_LEVIT, V2, K, save
from transformers import AutoModelForImageClassification

from deit_plugin.__main__ import main
from deit_plugin.apis.convert import convert
from deit_plugin.apis.fuse_heads import fuse_heads

UNTRAINED = dict(type='DistillationLoss', mode='none')
V1 = dict(
    type='DistilledTimmClassifier',
    model_name='efficientformer_l1',
    num_classes=K,
    embed_dims=(8, 16, 24, 32),
    depths=(1, 1, 1, 2),
)
FASTVIT = dict(
    type='DistilledTimmClassifier',
    model_name='fastvit_t8',
    num_classes=K,
    layers=(1, 1, 1, 1),
    loss=dict(type='DistillationLoss', distill_on='cls'),
)
SWIFTFORMER = dict(type='DistilledTimmClassifier', model_name='swiftformer_xs', num_classes=K)


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
    source, target = str(tmp_path / 'two.pth'), str(tmp_path / 'one.pth')
    model = save(source, cfg, side)
    assert main(['convert', source, target, '--to', 'mmpretrain', '--fuse-heads']) == 0
    fused = torch.load(target)
    assert fused['meta']['dataset_meta'] == dict(classes=CLASSES)
    one = single(cfg)
    one.load_state_dict(fused['state_dict'])
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(one.eval()(images), model(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'cfg, side, name, options',
    [
        (REPVIT, 32, 'repvit_m0_9', dict(TIMM, distillation=False)),
        (TIMM_LEVIT, 64, 'levit_128s', dict(LEVITS, distilled=False)),
        (LEVIT, 64, 'levit_128s', dict(LEVITS, distilled=False)),
    ],
    ids=['repvit', 'timm_levit', 'levit'],
)
@torch.no_grad()
def test_timm_and_transformers_load_it(cfg, side, name, options, tmp_path):
    source, target = str(tmp_path / 'two.pth'), str(tmp_path / 'one.safetensors')
    model = save(source, cfg, side)
    convert(source, target, 'timm', fuse_heads=True)
    options.setdefault('num_classes', K)
    one = timm.create_model(name, checkpoint_path=target, **options)
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(one.eval()(images), model(images), atol=1e-5, rtol=1e-5)
    convert(source, str(tmp_path / 'hub'), 'transformers', fuse_heads=True)
    one, info = AutoModelForImageClassification.from_pretrained(tmp_path / 'hub', output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(one.eval()(images).logits, model(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    'cfg, to, message',
    [
        (EFFICIENTFORMER, 'timm', 'timm has no efficientformer_l1 with one head: .*export --head mean'),
        (V1, 'mmpretrain', 'timm has no efficientformer_l1 with one head: .*export --head mean'),
        (SWIFTFORMER, 'timm', 'timm has no swiftformer_xs with one head: .*export --head mean'),
        (
            dict(type='DistilledTimmClassifier', model_name='efficientvim_m1_dist', num_classes=K),
            'timm',
            'read several stages.*export --head mean',
        ),
        (dict(REPVIT, prediction='cls'), 'timm', "prediction='cls', and one head.*deit-plugin export"),
        (dict(LEVIT, prediction='dist'), 'mmpretrain', "prediction='dist', and one head"),
        (dict(REPVIT, loss=UNTRAINED), 'timm', r"is not trained \(mode='none'\).*export --head cls"),
        (
            dict(LEVIT, head=dict(LEVIT['head'], loss=dict(type='DistillationLoss', distill_on='cls'))),
            'mmpretrain',
            r"is not trained \(distill_on='cls'\)",
        ),
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
            'has one head, there is no head_dist.* to fuse: leave --fuse-heads out',
        ),
        (FASTVIT, 'timm', 'has one head, '),
        (FASTVIT, 'mmpretrain', 'has one head, '),
    ],
)
def test_what_cannot_be_fused(cfg, to, message, tmp_path):
    source, target = tmp_path / 'two.pth', tmp_path / 'one'
    save(source, cfg, 64)
    with pytest.raises(ValueError, match=message):
        convert(str(source), str(target), to, fuse_heads=True)
    assert not target.exists()


@pytest.mark.parametrize('to', ['timm', 'mmpretrain'])
@pytest.mark.parametrize('cfg, name', [(REPVIT, 'model.stages.2'), (LEVIT, 'backbone.stages.2.2.')])
def test_what_is_not_whole_is_not_fused(cfg, name, to, tmp_path):
    source, target = tmp_path / 'two.pth', tmp_path / 'one.pth'
    save(source, cfg, 64)
    content = torch.load(source)
    content['state_dict'] = {k: v for k, v in content['state_dict'].items() if not k.startswith(name)}
    torch.save(content, source)
    with pytest.raises(ValueError, match='two.pth is not a whole'):
        convert(str(source), str(target), to, fuse_heads=True)
    assert not target.exists()


def test_weights_alone_need_a_config(tmp_path):
    model = timm.create_model('repvit_m0_9', num_classes=K).eval()
    source, target = str(tmp_path / 'two.pth'), str(tmp_path / 'one.pth')
    torch.save(model.state_dict(), source)
    with pytest.raises(ValueError, match='records no model, so nothing tells whether it is whole.*--config'):
        convert(source, target, 'timm', fuse_heads=True)
    assert main(['convert', source, target, '--to', 'timm', '--fuse-heads', '--config', 'repvit_m0_9']) == 0
    one = timm.create_model('repvit_m0_9', num_classes=K, distillation=False, checkpoint_path=target).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(one(images), model(images), atol=1e-5, rtol=1e-5)


def test_heads_without_biases_and_weights_in_any_layout(tmp_path):
    weights = {name: torch.rand(K, 8) for name in ('head.weight', 'head_dist.weight')}
    fused = fuse_heads(weights, 'a file')
    assert list(fused) == ['head.weight']
    torch.testing.assert_close(fused['head.weight'], sum(weights.values()) / 2)
    model = save(tmp_path / 'two.pth', REPVIT, 32).to(memory_format=torch.channels_last)
    content = torch.load(tmp_path / 'two.pth')
    torch.save(dict(content, state_dict=model.state_dict()), tmp_path / 'two.pth')
    convert(str(tmp_path / 'two.pth'), str(tmp_path / 'one.safetensors'), 'timm', fuse_heads=True)
    assert (tmp_path / 'one.safetensors').exists()
