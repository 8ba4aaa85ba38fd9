# The student of deit_digits_distilled.py without a teacher: labels alone.
# No figure is published: it is a demo. At most three minutes on 2 CPU cores:
#   mim train mmpretrain configs/deit_digits.py
_base_ = ['_base_/digits.py']

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='DeiT',
        arch=dict(embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256),
        img_size=16,
        patch_size=4,
        drop_path_rate=0.1,
    ),
    head=dict(
        type='DeiTHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
)
