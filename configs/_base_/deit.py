# DeiT-B. Smaller ones change `arch` and the head's `in_channels`.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='DeiT', arch='base', drop_path_rate=0.1),
    head=dict(
        type='DeiTHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)
