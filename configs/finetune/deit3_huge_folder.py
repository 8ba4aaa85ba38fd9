# DeiT-III H (patches of 14) on your own images, from the published weights of ImageNet-21k and 1k.
# No figure is published.
#   mim train mmpretrain configs/finetune/deit3_huge_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(type='DeiTIII', arch='huge', drop_path_rate=0.0), head=dict(in_channels=1280))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_3_huge_224_21k_v1.pth'
