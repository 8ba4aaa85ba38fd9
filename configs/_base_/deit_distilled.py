# DeiT-B with hard distillation through the token.
_base_ = ['deit.py', 'regnety_160.py']

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
            alpha=0.5,
        ),
    ),
    teacher=_base_.pop('teacher'),
)
