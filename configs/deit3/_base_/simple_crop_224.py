# 3-Augment of simple random crops, without repeated augmentation.
_base_ = ['three_augment_224.py']

train_pipeline = [
    dict(type='LoadSimpleRandomCrop', scale=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline), sampler=dict(repeat=False))
