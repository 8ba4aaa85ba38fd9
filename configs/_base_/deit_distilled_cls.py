# DeiT-B with the teacher on the class token, without a distillation token.
_base_ = ['deit.py', 'regnety_160.py']

model = dict(
    type='DistilledClassifier',
    head=dict(
        loss=dict(
            _delete_=True,
            type='DistillationLoss',
            base_loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
            mode='hard',
            alpha=0.5,
            distill_on='cls',
        )
    ),
    teacher=_base_.pop('teacher'),
)
