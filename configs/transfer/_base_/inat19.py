# iNaturalist 2019 has no class in mmpretrain. One folder for each of the 1,010
# categories, named alike in both splits:
#   data/inat2019/train/0000/*.jpg ... data/inat2019/val/1009/*.jpg
_base_ = ['../../_base_/imagenet_224.py']

data_preprocessor = dict(num_classes=1010, erasing=.1)
train_dataloader = dict(
    batch_size=96,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/inat2019',
        data_prefix='train',
        pipeline=_base_.train_pipeline))
val_dataloader = dict(
    batch_size=96,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/inat2019',
        data_prefix='val',
        pipeline=_base_.test_pipeline))
test_dataloader = val_dataloader
