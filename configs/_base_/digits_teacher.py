# A RegNetY, as in the paper, with 0.1M parameters.
teacher = dict(
    type='TimmClassifier',
    model_name='regnety_002',
    num_classes=10,
    depth=6,
    w0=16,
    wa=16.0,
    wm=2.0,
    group_size=8,
    stem_width=16,
    output_stride=8,
    # Else timm's own mean and std of this architecture would count.
    data_preprocessor=dict(mean=[77.9] * 3, std=[95.9] * 3, to_rgb=False),
)
