# CIFAR-100: mmpretrain downloads it.
_base_ = ['../../_base_/imagenet_224.py']

# The images are in memory, in RGB.
data_preprocessor = dict(num_classes=100, erasing=0., to_rgb=False)
train_pipeline = _base_.train_pipeline[1:]
train_pipeline[2].hparams.pad_val = [124, 116, 104]
test_pipeline = _base_.test_pipeline[1:]
train_dataloader = dict(
    batch_size=96,
    dataset=dict(
        type='CIFAR100',
        data_root='data/cifar100',
        split='train',
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=96,
    dataset=dict(
        type='CIFAR100',
        data_root='data/cifar100',
        split='test',
        pipeline=test_pipeline))
test_dataloader = val_dataloader
