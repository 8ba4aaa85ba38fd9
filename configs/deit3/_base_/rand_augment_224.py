# ImageNet at 224 x 224 with RandAugment alone, without erasing or repeated augmentation; evaluation at a crop
# ratio of 1.0.
_base_ = ['../../_base_/imagenet_224.py']

data_preprocessor = dict(erasing=0.0)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 224
train_dataloader = dict(sampler=dict(repeat=False))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
