# What all students share: DeiT's teacher, hard labels at a weight of 0.5, its augmentation, a decay of
# 0.025 of all but 1-D parameters, and float32.
_base_ = [
    '../../_base_/regnety_160.py',
    '../../_base_/imagenet_224.py',
    '../../_base_/recipe.py',
]

model = dict(
    type='DistilledTimmClassifier',
    num_classes=1000,
    loss=dict(
        type='DistillationLoss',
        base_loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
        mode='hard',
        alpha=0.5,
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
    teacher=_base_.pop('teacher'),
)

_base_.optim_wrapper.pop('dtype')
_base_.optim_wrapper.pop('loss_scale')
_base_.optim_wrapper.paramwise_cfg.pop('custom_keys')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(weight_decay=0.025))
