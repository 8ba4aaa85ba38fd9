# The digits of scikit-learn, written into folders by `deit-plugin digits data/digits`.
_base_ = 'folder.py'

data_root = 'data/digits'
pretrained = False
image_size = 16
data_preprocessor = dict(rand_augment=None, erasing=0.0)  # a mirrored or turned digit is another
train_pipeline = [
    dict(type='LoadRandomResizedCrop', scale=16, crop_ratio_range=(0.7, 1.0), flip_prob=0.0),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImage'),
    dict(type='Resize', scale=(16, 16), interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=1e-3))  # from random weights
default_hooks = dict(logger=dict(interval=10))
