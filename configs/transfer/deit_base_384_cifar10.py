# DeiT-B on CIFAR-10 at 384, from ../deit_base_384.py.
# Published top-1: 99.1 (arXiv 2012.12877, table 7). The hardware is not published; on 24 GPUs x 32:
#   mim train mmpretrain configs/transfer/deit_base_384_cifar10.py --launcher slurm --gpus 24 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 768:
#   mim train mmpretrain configs/transfer/deit_base_384_cifar10.py
_base_ = ['../_base_/deit.py', '../_base_/imagenet_384.py', '_base_/data_sets.py', '_base_/sgd.py']

model = dict(backbone=dict(img_size=384, drop_path_rate=0.0), head=dict(num_classes=10))
data_preprocessor = dict(num_classes=10, erasing=0.0)
train_dataloader, val_dataloader = _base_.pop('data_sets').cifar10
train_dataloader.sampler = dict(processes=24)
to_bgr = dict(type='ReverseChannels')
train_pipeline = [to_bgr, *_base_.train_pipeline]
test_pipeline = [to_bgr, *_base_.test_pipeline[1:]]  # nothing is loaded
train_dataloader.dataset.pipeline = train_pipeline
val_dataloader.dataset.pipeline = test_pipeline
test_dataloader = val_dataloader
load_from = 'work_dirs/deit_base_384/epoch_30.pth'
