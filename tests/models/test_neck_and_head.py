import pytest
import torch
from conftest import ARCH, build
from mmpretrain.structures import DataSample


def backbone(**kwargs):
    return build(dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, **kwargs))


@pytest.mark.parametrize('width', [48, 80])
@pytest.mark.parametrize('out_type', ['raw', 'cls_token'])
def test_neck_hands_on_both_tokens_or_one(out_type, width):
    feats = backbone(distilled=True, out_type=out_type)(torch.randn(2, 3, 48, width))
    cfg = dict(type='DistillationTokenNeck', num_extra_tokens=2)
    cls, dist = build(cfg)(feats)
    tokens = feats[-1]
    expected = (tokens[:, 0], tokens[:, 1]) if out_type == 'raw' else tokens
    assert torch.equal(cls, expected[0]) and torch.equal(dist, expected[1])
    for i, token in enumerate(('cls', 'dist')):
        (alone,) = build(dict(cfg, token=token))(feats)
        assert torch.equal(alone, expected[i])


@pytest.mark.parametrize('out_type', ['raw', 'cls_token', 'avg_featmap'])
def test_neck_refuses_a_backbone_without_the_token(out_type):
    feats = backbone(out_type=out_type)(torch.randn(2, 3, 32, 32))
    for told in (None, 1):
        neck = build(dict(type='DistillationTokenNeck', num_extra_tokens=told))
        with pytest.raises(ValueError, match='DistillationTokenNeck got (no|all 17 tokens)'):
            neck(feats)


def test_the_classifier_tells_the_neck_what_the_tokens_are(distilled_cfg):
    """Compiled, at a size of which the tokens make a square number, they are known."""
    distilled_cfg['backbone'].update(out_type='raw')
    model = build(distilled_cfg).eval()
    images = torch.randn(2, 3, 48, 32)  # 6 x 4 patches and 2 tokens
    expected = model(images)
    model.backbone.compile(backend='eager')
    torch.testing.assert_close(model(images), expected)


def test_neck_with_a_backbone_of_mmpretrain(distilled_cfg):
    arch = distilled_cfg['backbone']['arch']
    cfg = dict(arch=arch, img_size=32, patch_size=8, out_type='raw')
    distilled_cfg['backbone'] = dict(type='DistilledVisionTransformer', **cfg)
    model = build(distilled_cfg)
    tokens = model.backbone(torch.randn(1, 3, 32, 32))
    assert torch.equal(model.neck(tokens)[1], tokens[0][:, 1])
    distilled_cfg['backbone'] = dict(type='VisionTransformer', **cfg)
    with pytest.raises(ValueError, match='VisionTransformer has 1 extra token'):
        build(distilled_cfg)


def test_classic_fine_tuning_without_distillation():
    model = build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, distilled=True),
            neck=dict(type='DistillationTokenNeck', token='cls'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=32),
        )
    )
    images = torch.randn(2, 3, 32, 32)
    expected = model.head.fc(model.backbone(images)[-1][0])
    torch.testing.assert_close(model(images), expected)


def test_readings():
    head = build(dict(type='DeiTDualHead', num_classes=4, in_channels=32))
    head.init_weights()
    feats = torch.randn(3, 32), torch.randn(3, 32)
    cls, dist = head.layers.head(feats[0]), head.layers.head_dist(feats[1])
    torch.testing.assert_close(head.train()(feats), (cls, dist))
    head.eval()
    readings = dict(
        mean=((cls + dist) / 2).softmax(1),
        cls=cls.softmax(1),
        dist=dist.softmax(1),
        mean_softmax=(cls.softmax(1) + dist.softmax(1)) / 2,
    )
    for head.prediction, expected in readings.items():
        torch.testing.assert_close(head(feats).softmax(1), expected)
        scores = torch.stack([s.pred_score for s in head.predict(feats)])
        torch.testing.assert_close(scores, expected)


def test_head_without_a_neck():
    head = build(dict(type='DeiTDualHead', num_classes=4, in_channels=32))
    pair = torch.randn(3, 32), torch.randn(3, 32)
    torch.testing.assert_close(head((pair,)), head(pair))


def test_head_initialisation():
    head = build(dict(type='DeiTDualHead', num_classes=500, in_channels=64))
    head.init_weights()
    for layer in (head.layers.head, head.layers.head_dist):
        assert abs(layer.weight.std() - 0.02) < 1e-3
        assert (layer.bias == 0).all()


def test_wrong_use():
    with pytest.raises(ValueError, match="prediction='max' is unknown"):
        build(dict(type='DeiTDualHead', num_classes=4, in_channels=32, prediction='max'))
    with pytest.raises(ValueError, match="token='patch' is unknown"):
        build(dict(type='DistillationTokenNeck', token='patch'))
    head = build(dict(type='DeiTDualHead', num_classes=4, in_channels=32))
    with pytest.raises(ValueError, match='got 1 feature'):
        head((torch.randn(3, 32),))
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    with pytest.raises(ValueError, match="needs a teacher.*model.type='DistilledClassifier'"):
        head.loss((torch.randn(3, 32), torch.randn(3, 32)), samples)


def test_both_heads_learn_from_labels_alone():
    head = build(
        dict(type='DeiTDualHead', num_classes=4, in_channels=32, loss=dict(type='CrossEntropyLoss'))
    ).train()
    feats = torch.randn(3, 32), torch.randn(3, 32)
    samples = [DataSample().set_gt_label(i) for i in range(3)]
    cls, dist = head(feats)
    expected = torch.nn.functional.cross_entropy((cls + dist) / 2, torch.arange(3))
    torch.testing.assert_close(head.loss(feats, samples)['loss'], expected)
    scores = torch.stack([s.pred_score for s in head.predict(feats)])
    torch.testing.assert_close(scores, ((cls + dist) / 2).softmax(1))
