# DeiT-Ti distilled on your own images, from the published weights. No figure is published.
#   mim train mmpretrain configs/finetune/deit_tiny_distilled_folder.py --cfg-options data_root=FOLDER
# With a teacher of these classes (teacher_folder.py) also teacher_checkpoint=FILE_OR_WORK_FOLDER; without one
# both heads learn the labels.
_base_ = ['../_base_/deit_distilled.py', '_base_/folder.py']

model = dict(backbone=dict(arch='tiny', drop_path_rate=0.0), head=dict(in_channels=192))
load_from = 'https://dl.fbaipublicfiles.com/deit/deit_tiny_distilled_patch16_224-b40b3cf7.pth'
