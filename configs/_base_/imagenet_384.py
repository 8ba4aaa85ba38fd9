# ImageNet at 384 x 384: the augmentation of 224, evaluation on the centre of
# the image whose shorter side is 438.
_base_ = ['imagenet_224.py']

train_pipeline = _base_.train_pipeline
train_pipeline[0].scale = 384
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 438
test_pipeline[2].crop_size = 384

train_dataloader = dict(batch_size=32, sampler=dict(batch_size=32), dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=32, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
