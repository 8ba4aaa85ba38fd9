# DeiT-B distilled on your own images at 384, from the published weights. No figure is published.
#   mim train mmpretrain configs/finetune/deit_base_distilled_384_folder.py --cfg-options data_root=FOLDER
_base_ = 'deit_base_distilled_folder.py'

image_size = 384
model = dict(backbone=dict(img_size=384))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_base_distilled_patch16_384-d0272ac0.pth'
