# A small RepViT of the demo's digits, distilled as deit_digits_distilled.py is.
# No figure is published: it is a demo. About three minutes on 2 CPU cores:
#   mim train mmpretrain configs/students/repvit_digits.py
_base_ = ['../_base_/digits.py', '../_base_/digits_teacher.py']

model = dict(
    type='DistilledTimmClassifier',
    model_name='repvit_m0_9',
    num_classes=10,
    embed_dim=(24, 48, 96, 128),
    depth=(1, 1, 3, 1),
    loss=dict(
        type='DistillationLoss',
        base_loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
        mode='hard',
    ),
    teacher=dict(checkpoint='{{ fileDirname }}/../deit_digits_teacher.pth', **_base_.pop('teacher')),
)
optim_wrapper = dict(clip_grad=dict(type='agc', clip_factor=0.02, exclude_head=False))
