# DeiT-B on iNaturalist 2019 at 224, from deit_base.py.
#   mim train mmpretrain configs/transfer/deit_base_inat19.py
# Published top-1: 77.7 (arXiv 2012.12877, table 7); the hardware is not. Here
# a batch of 768 on 8 GPUs x 96, or accumulated.
_base_ = ['../_base_/deit.py', '_base_/inat19.py', '_base_/adamw_inat.py']

model = dict(backbone=dict(drop_path_rate=0.1), head=dict(num_classes=1010))
load_from = 'work_dirs/deit_base/epoch_300.pth'
