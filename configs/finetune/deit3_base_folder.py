# DeiT-III B on your own images, from the published weights of ImageNet-21k and 1k. No figure is published.
#   mim train mmpretrain configs/finetune/deit3_base_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(type='DeiTIII', arch='base', drop_path_rate=0.0), head=dict(in_channels=768))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_3_base_224_21k.pth'
