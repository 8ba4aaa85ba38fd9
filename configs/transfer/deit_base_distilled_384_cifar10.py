# DeiT-B distilled on CIFAR-10 at 384, from deit_base_distilled_384.py.
#   mim train mmpretrain configs/transfer/deit_base_distilled_384_cifar10.py
# Published top-1: 99.2 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 24 GPUs x 32, or accumulated.
_base_ = ['_base_/distilled.py', '_base_/cifar10_384.py', '_base_/sgd.py']

model = dict(backbone=dict(img_size=384, drop_path_rate=0.0), head=dict(num_classes=10))
load_from = 'work_dirs/deit_base_distilled_384/epoch_30.pth'
