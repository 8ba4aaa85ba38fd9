"""Images of another size than a teacher or a student takes."""

import pytest
import torch
from conftest import build, make_batch, step
from mmpretrain.structures import DataSample
from students import EFFICIENTFORMER, LEVIT, REPVIT, TIMM_LEVIT, V2, K

from deit_plugin.models.image_size import image_size_of_config

MEAN = dict(mean=[120.0] * 3, std=[60.0] * 3)
VIT = dict(type='TimmClassifier', model_name='vit_tiny_patch16_224', num_classes=K)
DEIT = dict(VIT, model_name='deit_tiny_patch16_224')
SWIN = dict(VIT, model_name='swin_tiny_patch4_window7_224', embed_dim=12, depths=(1, 1, 1, 1))
LINEAR = dict(type='LinearClsHead', num_classes=K)


def of_mmpretrain(**backbone):
    width = backbone.pop('width', 192)
    neck = dict(type='GlobalAveragePooling', dim=1)
    return dict(type='ImageClassifier', backbone=backbone, neck=neck, head=dict(LINEAR, in_channels=width))


def taught_by(teacher):
    return build(dict(REPVIT, teacher=teacher, data_preprocessor=MEAN)).train()


@pytest.mark.parametrize(
    'teacher, message',
    [
        (VIT, r'the teacher vit_tiny_patch16_224 takes \(224, 224\): set its `img_size=32`, with weights'),
        (
            dict(type='EnsembleClassifier', members=[dict(VIT, img_size=32), DEIT]),
            r'the teacher deit_tiny_patch16_224 takes \(224, 224\): set its `img_size=32`',
        ),
        (
            of_mmpretrain(**LEVIT['backbone'] | dict(img_size=48)),
            r'the teacher ImageClassifier takes \(48, 48\): set its `backbone.img_size=32`',
        ),
        (
            of_mmpretrain(**EFFICIENTFORMER['backbone']),
            r'the teacher ImageClassifier takes \(224, 224\): crop the images to that',
        ),
        (
            of_mmpretrain(type='MlpMixer', arch=dict(embed_dims=8, num_layers=1, tokens_mlp_dims=4,
                          channels_mlp_dims=4), img_size=64, patch_size=32),
            r'The teacher ImageClassifier has no answer to images of \(32, 32\) .*shape \(64, 64\)\. If',
        ),
        (
            of_mmpretrain(type='BEiTViT', arch=dict(embed_dims=8, num_layers=1, num_heads=2,
                          feedforward_channels=8), img_size=64, patch_size=16, out_type='avg_featmap',
                          use_abs_pos_emb=False, use_rel_pos_bias=True),
            r'no answer to images of \(32, 32\) .*size of tensor.*crop the images to that, or set its `img',
        ),
    ],
    ids=['timm', 'ensemble', 'levit', 'efficientformer', 'mixer', 'beit'],
)  # fmt: skip
def test_a_teacher_of_another_size_is_refused(teacher, message):
    with pytest.raises(ValueError, match=message) as raised:
        step(taught_by(teacher), make_batch())
    assert isinstance(raised.value.__cause__, (RuntimeError, AssertionError))


def test_a_teacher_that_takes_the_size():
    """One whose size was set after the refusal, and one that timm calls strict by default alone."""
    model = taught_by(VIT)
    with pytest.raises(ValueError, match='set its `img_size=32`'):
        step(model, make_batch())
    model.teacher.cfg['img_size'], model.teacher.model = 32, None
    assert 'loss_distill' in step(model, make_batch())
    assert 'loss_distill' in step(taught_by(dict(SWIN, strict_img_size=False)), make_batch())
    assert image_size_of_config(SWIN) and not image_size_of_config(dict(SWIN, strict_img_size=False))


def test_other_errors_of_a_teacher_stay_as_they_are(monkeypatch):
    model = taught_by(dict(VIT, img_size=32))

    def fail(error):
        def forward(*args, **kwargs):
            raise error

        monkeypatch.setattr(model.teacher.model, 'forward', forward)

    model.teacher.build()
    fail(torch.OutOfMemoryError('too much'))
    with pytest.raises(torch.OutOfMemoryError, match='too much'):
        step(model, make_batch())
    monkeypatch.undo()
    step(model, make_batch())
    fail(RuntimeError('of the device'))  # it has answered before
    with pytest.raises(RuntimeError, match='of the device'):
        step(model, make_batch())


@pytest.mark.parametrize(
    'cfg, given, message',
    [
        (LEVIT, 32, r'are \(32, 32\).*the TrainableLeViT takes \(64, 64\): set its `backbone.img_size=32`'),
        (EFFICIENTFORMER, 192, r'the EfficientFormer takes \(224, 224\): crop the images to that$'),
        (TIMM_LEVIT, 32, r'the LevitDistilled takes \(64, 64\): set its `img_size=32`, with weights'),
        (V2, 32, r'the EfficientFormerV2 takes \(64, 64\): set its `img_size=32`'),
    ],
    ids=['levit', 'efficientformer', 'timm_levit', 'v2'],
)
def test_a_student_of_another_size(cfg, given, message):
    """In training and in evaluation, without any hook."""
    loss = dict(type='DistillationLoss', mode='none')
    cfg = dict(cfg, head=dict(cfg['head'], loss=loss)) if 'head' in cfg else dict(cfg, loss=loss)
    model = build(cfg)
    images = torch.rand(2, 3, given, given)
    labels = [DataSample().set_gt_label(i) for i in range(2)]
    with pytest.raises(ValueError, match=message):
        model.train()(images, labels, mode='loss')
    for mode in ('tensor', 'predict'):
        with pytest.raises(ValueError, match=message):
            model.eval()(images, mode=mode)


@pytest.mark.parametrize(
    'name', ['crossvit_tiny_240', 'swiftformer_xs', 'twins_svt_small', 'xcit_nano_12_p8_224']
)
def test_models_that_take_any_size(name):
    """Though timm says otherwise."""
    cfg = dict(type='DistilledTimmClassifier', model_name=name, num_classes=K)
    assert image_size_of_config(cfg) is None
    with torch.device('meta'):
        model = build(dict(cfg, loss=dict(type='CrossEntropyLoss')))
        assert model.eval()(torch.empty(1, 3, 128, 128)).shape == (1, K)
