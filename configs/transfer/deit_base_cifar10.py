# DeiT-B on CIFAR-10 at 224, from ../deit_base.py.
# Published top-1: 99.1 (arXiv 2012.12877, table 7). The hardware is not published; on 8 GPUs x 96:
#   mim train mmpretrain configs/transfer/deit_base_cifar10.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 768:
#   mim train mmpretrain configs/transfer/deit_base_cifar10.py
_base_ = ['../_base_/deit.py', '../_base_/imagenet_224.py', '_base_/data_sets.py', '_base_/sgd.py']

model = dict(backbone=dict(drop_path_rate=0.0), head=dict(num_classes=10))
data_preprocessor = dict(num_classes=10, erasing=0.0)
train_dataloader, val_dataloader = _base_.pop('data_sets').cifar10
to_bgr = dict(type='ReverseChannels')
train_pipeline = [to_bgr, *_base_.train_pipeline]
test_pipeline = [to_bgr, *_base_.test_pipeline[1:]]  # nothing is loaded
train_dataloader.dataset.pipeline = train_pipeline
val_dataloader.dataset.pipeline = test_pipeline
train_dataloader.batch_size = val_dataloader.batch_size = 96
train_dataloader.sampler = dict(processes=8, batch_size=96)
test_dataloader = val_dataloader
load_from = 'work_dirs/deit_base/epoch_300.pth'
