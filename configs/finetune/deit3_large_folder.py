# DeiT-III L on your own images, from the published weights of ImageNet-21k and 1k. No figure is published.
#   mim train mmpretrain configs/finetune/deit3_large_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(type='DeiTIII', arch='large', drop_path_rate=0.0), head=dict(in_channels=1024))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_3_large_224_21k.pth'
