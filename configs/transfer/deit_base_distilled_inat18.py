# DeiT-B distilled on iNaturalist 2018 at 224, from deit_base_distilled.py.
#   mim train mmpretrain configs/transfer/deit_base_distilled_inat18.py
# Published top-1: 73.7 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 8 GPUs x 96, or accumulated.
_base_ = ['_base_/distilled.py', '_base_/inat18.py', '_base_/adamw_inat.py']

model = dict(backbone=dict(drop_path_rate=0.1), head=dict(num_classes=8142))
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
