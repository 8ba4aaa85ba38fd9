# DeiT-III M on your own images, from the published weights of ImageNet-21k and 1k. No figure is published.
#   mim train mmpretrain configs/finetune/deit3_medium_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(type='DeiTIII', arch='medium', drop_path_rate=0.0), head=dict(in_channels=512))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_3_medium_224_21k.pth'
