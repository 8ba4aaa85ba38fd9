# DeiT-S on your own images, from the published weights. No figure is published.
#   mim train mmpretrain configs/finetune/deit_small_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(arch='small', drop_path_rate=0.0), head=dict(in_channels=384))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth'
