# ImageNet at 224 x 224, with the reference's augmentation and evaluation.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py']

data_preprocessor = dict(type='DeiTDataPreprocessor', erasing=.25)

# Pillow reads, crops and resizes, as in the reference; no EXIF rotation.
load = dict(
    type='LoadImageFromFile',
    imdecode_backend='pillow',
    color_type='color_ignore_orientation')
train_pipeline = [
    load,
    dict(
        type='RandomResizedCrop',
        scale=224,
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=.5, direction='horizontal'),
    dict(  # rand-m9-mstd0.5-inc1; BGR, since the images are
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(type='PackInputs'),
]
test_pipeline = [
    load,
    dict(
        type='ResizeEdge',
        scale=256,
        edge='short',
        backend='pillow',
        interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    drop_last=True,
    dataset=dict(type='ImageNet1k', pipeline=train_pipeline),
    sampler=dict(_delete_=True, type='RepeatedAugmentSampler'))
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(type='ImageNet1k', pipeline=test_pipeline))
test_dataloader = val_dataloader
