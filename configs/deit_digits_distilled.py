# Hard distillation through the token, from a small RegNetY, on real images.
# No figure is published: it is a demo. About three minutes on 2 CPU cores:
#   mim train mmpretrain configs/deit_digits_distilled.py
_base_ = ['deit_digits.py', '_base_/digits_teacher.py']

model = dict(
    type='DistilledClassifier',
    backbone=dict(distilled=True),
    neck=dict(type='DistillationTokenNeck'),
    head=dict(
        type='DeiTDualHead',
        loss=dict(
            _delete_=True,
            type='DistillationLoss',
            base_loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
            mode='hard',
        ),
    ),
    teacher=dict(checkpoint='{{ fileDirname }}/deit_digits_teacher.pth', **_base_.teacher),
)
