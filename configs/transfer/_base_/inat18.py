# iNaturalist 2018 has no class in mmpretrain. One folder for each of the 8,142
# categories, named alike in both splits:
#   data/inat2018/train/0000/*.jpg ... data/inat2018/val/8141/*.jpg
_base_ = ['../../_base_/imagenet_224.py']

data_preprocessor = dict(num_classes=8142, erasing=0.1)
train_dataloader = dict(
    batch_size=96,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/inat2018',
        data_prefix='train',
        pipeline=_base_.train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=96,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/inat2018',
        data_prefix='val',
        pipeline=_base_.test_pipeline,
    ),
)
test_dataloader = val_dataloader
