# DeiT-B on Flowers-102 at 224, from deit_base.py.
#   mim train mmpretrain configs/transfer/deit_base_flowers.py
# Published top-1: 98.4 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 8 GPUs x 96, or accumulated.
_base_ = ['../_base_/deit.py', '_base_/flowers.py', '_base_/adamw_dino.py']

model = dict(backbone=dict(drop_path_rate=0.1), head=dict(num_classes=102))
load_from = 'work_dirs/deit_base/epoch_300.pth'
