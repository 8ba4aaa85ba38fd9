# ImageNet at 224 x 224, with the reference's augmentation and evaluation.
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py']

# A worker reads, crops, resizes and flips; the rest, rand-m9-mstd0.5-inc1
# first, happens to a whole batch on its device.
data_preprocessor = dict(type='DeiTDataPreprocessor', rand_augment=dict(), erasing=0.25)
train_pipeline = [
    dict(type='LoadRandomResizedCrop', scale=224),
    dict(type='PackInputs'),
]

# With Pillow's values and its resize, as in the reference; no EXIF rotation.
load = dict(type='LoadImage')
test_pipeline = [
    load,
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

# The workers stay between epochs and make whole batches: one file descriptor
# for each image, as mmengine's default has it, can run out of them.
loading = dict(num_workers=8, persistent_workers=True, pin_memory=True)
train_dataloader = dict(
    batch_size=64,
    drop_last=True,
    **loading,
    collate_fn=dict(type='labels_collate'),
    dataset=dict(type='ImageNet1k', pipeline=train_pipeline),
    # The published run's processes, whatever this one has: see docs/training.md.
    sampler=dict(_delete_=True, type='RepeatedAugmentSampler', processes=16, batch_size=64),
)
val_dataloader = dict(
    batch_size=64,
    **loading,
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet1k', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
del loading
