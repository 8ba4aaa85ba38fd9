# FastViT (arXiv 2303.14189), as apple/ml-fastvit at 8af5928 trains it with timm's script: one head, which
# learns from the labels and the teacher; images of 256 x 256 for both; 300 epochs and 10 at the last rate, at
# a batch of 1024, in float16; evaluation of the moving average. There boxes are erased after mixing, here
# before it.
_base_ = ['distilled.py']

model = dict(loss=dict(distill_on='cls'))

train_pipeline = _base_.train_pipeline
train_pipeline[0].scale = 256
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 284  # crop ratio 0.9
test_pipeline[2].crop_size = 256
train_dataloader = dict(
    batch_size=128,
    dataset=dict(pipeline=train_pipeline),
    sampler=dict(repeat=False, processes=8, batch_size=128),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=310)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    optimizer=dict(lr=1e-3, weight_decay=0.05),
)
param_scheduler = [dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5, lag=0, period=300)]
custom_hooks = [
    dict(type='StepEMAHook', ema_type='ForeachEMA', momentum=5e-4, update_buffers=True),
    dict(type='SyncBuffersHook'),
]
