"""Small students with two heads that are no DeiTs, and their checkpoints."""

import torch
from conftest import ARCH, build

K = 5
CLASSES = list('abcde')
NECK = dict(type='GlobalAveragePooling')
LEVIT = dict(
    type='DistilledClassifier',
    backbone=dict(
        type='TrainableLeViT',
        arch=dict(embed_dims=[32, 48, 64], num_heads=[2, 3, 4], depths=[2, 1, 1], key_dims=[8, 8, 8]),
        img_size=64,
    ),
    neck=NECK,
    head=dict(type='LeViTClsHead', num_classes=K, in_channels=64),
)
NARROW = dict(
    layers=[1, 1, 1, 2], embed_dims=[8, 16, 24, 32], downsamples=[False, True, True, True], vit_num=1
)
EFFICIENTFORMER = dict(
    type='DistilledClassifier',
    backbone=dict(type='EfficientFormer', arch=NARROW),
    neck=dict(NECK, dim=1),
    head=dict(type='EfficientFormerClsHead', num_classes=K, in_channels=32),
)
DEIT = dict(
    type='DistilledClassifier',
    backbone=dict(type='DistilledVisionTransformer', arch=ARCH, img_size=32, patch_size=8),
    head=dict(type='DeiTClsHead', num_classes=K, in_channels=32),
)
TIMM = dict(num_classes=K, embed_dim=(8, 16, 24, 32), depth=(1, 1, 2, 1))
REPVIT = dict(type='DistilledTimmClassifier', model_name='repvit_m0_9', **TIMM)
LEVITS = dict(embed_dim=(32, 48, 64), key_dim=8, num_heads=(2, 3, 4), depth=(2, 1, 1), img_size=64)
TIMM_LEVIT = dict(type='DistilledTimmClassifier', model_name='levit_128s', num_classes=K, **LEVITS)
V2 = dict(
    type='DistilledTimmClassifier',
    model_name='efficientformerv2_s0',
    num_classes=K,
    img_size=64,
    depths=(1, 1, 2, 2),
)
STUDENTS = dict(  # and the side of its images
    levit=(LEVIT, 64),
    efficientformer=(EFFICIENTFORMER, 224),
    deit=(DEIT, 32),
    repvit=(REPVIT, 32),
    timm_levit=(TIMM_LEVIT, 64),
)


def drawn(cfg):
    """A model in evaluation mode, of whose weights and statistics each matters."""
    model = build(cfg)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            value.normal_(std=0.1 if value.numel() < 1 << 12 else 0.02)  # else the logits are too large
            if name.endswith('running_var') or name.endswith('weight') and value.ndim == 1:
                value.abs_().add_(1)
    return model.eval()


def pipeline(side):
    """Of a test."""
    return [
        dict(type='ResizeEdge', scale=side + 8, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=side),
        dict(type='PackInputs'),
    ]


def save(path, cfg, side):
    """A checkpoint as a training of that student writes it; returns the model."""
    preprocessor = dict(
        type='mmpretrain.ClsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True, num_classes=K
    )
    model = dict(cfg, data_preprocessor=preprocessor)
    student = drawn(model)
    recorded = f'model = {model!r}\ntest_dataloader = dict(dataset=dict(pipeline={pipeline(side)!r}))\n'
    meta = dict(cfg=recorded, dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=student.state_dict(), meta=meta), path)
    return student
