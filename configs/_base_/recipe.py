# 300 epochs at a global batch of 1024 (arXiv 2012.12877, table 9, and
# facebookresearch/deit at 7e160fe).
_base_ = ['runtime.py']

train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# float16 with loss scaling; `optim_wrapper.dtype=bfloat16` for the other. No
# clipping. No decay of 1-D parameters (biases and norms), the class token and
# the position embeddings; the distillation token is decayed.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    paramwise_cfg=dict(
        flat_decay_mult=0.0,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0), '.pos_embed': dict(decay_mult=0.0)},
    ),
)
param_scheduler = [dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-5)]

default_hooks = dict(global_batch=dict(type='GlobalBatchHook', batch_size=1024))
