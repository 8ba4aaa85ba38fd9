# DeiT-B distilled, fine-tuned at 384 by its labels alone: the class token
# under an ordinary head, without a teacher.
#   mim train mmpretrain configs/deit_base_distilled_384_classic.py
# 16 GPUs x 32, float16.
# No published figure.
_base_ = ['_base_/deit.py', '_base_/imagenet_384.py', '_base_/finetune.py']

model = dict(
    backbone=dict(distilled=True, img_size=384, drop_path_rate=0.0),
    neck=dict(type='DistillationTokenNeck', token='cls'),
)
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
