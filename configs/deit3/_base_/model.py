# DeiT-III S. Other sizes change `arch`, the drop path, which is the same in every layer, and the head's
# `in_channels`.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='DeiTIII', arch='small', drop_path_rate=0.05),
    head=dict(
        type='DeiTHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(type='BinaryCrossEntropyLoss'),
    ),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)
