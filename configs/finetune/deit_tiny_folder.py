# DeiT-Ti on your own images, from the published weights. No figure is published.
#   mim train mmpretrain configs/finetune/deit_tiny_folder.py --cfg-options data_root=FOLDER
_base_ = ['../_base_/deit.py', '_base_/folder.py']

model = dict(backbone=dict(arch='tiny', drop_path_rate=0.0), head=dict(in_channels=192))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_tiny_patch16_224-a1311bcf.pth'
