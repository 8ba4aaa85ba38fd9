# The same at 160 x 160.
_base_ = ['three_augment_224.py']

train_pipeline = _base_.train_pipeline
train_pipeline[0].scale = 160
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = test_pipeline[2].crop_size = 160
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
