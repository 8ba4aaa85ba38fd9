# The demo's data, schedule and runtime. The images are inside scikit-learn:
# 1,437 to train and 360 to test, 8 x 8 pixels, here enlarged to 16 x 16.
_base_ = ['runtime.py']

data_preprocessor = dict(
    type='DeiTDataPreprocessor', num_classes=10, mean=[77.9] * 3, std=[95.9] * 3, to_rgb=False
)

train_pipeline = [
    dict(type='LoadRandomResizedCrop', scale=16, crop_ratio_range=(0.7, 1.0), flip_prob=0.0),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='Resize', scale=(16, 16), interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    pin_memory=False,
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='Digits', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=180,
    num_workers=1,
    persistent_workers=True,
    pin_memory=False,
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='Digits', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator

train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5)]

auto_scale_lr = dict(base_batch_size=64)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=1))
