# DeiT-B on CIFAR-10 at 224, from deit_base.py.
#   mim train mmpretrain configs/transfer/deit_base_cifar10.py
# Published top-1: 99.1 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 8 GPUs x 96, or accumulated.
_base_ = ['../_base_/deit.py', '_base_/cifar10.py', '_base_/sgd.py']

model = dict(backbone=dict(drop_path_rate=0.0), head=dict(num_classes=10))
load_from = 'work_dirs/deit_base/epoch_300.pth'
