# DeiT-B distilled on Stanford Cars at 224, from deit_base_distilled.py.
#   mim train mmpretrain configs/transfer/deit_base_distilled_cars.py
# Published top-1: 92.9 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 8 GPUs x 96, or accumulated.
_base_ = ['_base_/distilled.py', '_base_/cars.py', '_base_/sgd.py']

model = dict(backbone=dict(drop_path_rate=0.0), head=dict(num_classes=196))
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
