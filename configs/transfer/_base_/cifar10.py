# CIFAR-10: mmpretrain downloads it.
_base_ = ['../../_base_/imagenet_224.py']

# The images are in memory, in RGB; the pipeline takes them for BGR.
data_preprocessor = dict(num_classes=10, erasing=0.0)
to_bgr = dict(type='ReverseChannels')
train_pipeline = [to_bgr, *_base_.train_pipeline]
test_pipeline = [to_bgr, *_base_.test_pipeline[1:]]
train_dataloader = dict(
    batch_size=96,
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=96,
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
