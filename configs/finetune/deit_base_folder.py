# DeiT-B on your own images, from the published weights. No figure is published.
#   mim train mmpretrain configs/finetune/deit_base_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(drop_path_rate=0.0))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth'
