# DeiT-B distilled on CIFAR-100 at 224, from deit_base_distilled.py.
#   mim train mmpretrain configs/transfer/deit_base_distilled_cifar100.py
# Published top-1: 91.3 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 8 GPUs x 96, or accumulated.
_base_ = ['_base_/distilled.py', '_base_/cifar100.py', '_base_/adamw_dino.py']

model = dict(backbone=dict(drop_path_rate=0.1), head=dict(num_classes=100))
optim_wrapper = dict(optimizer=dict(lr=5e-6))  # see _base_/adamw_dino.py
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
