# iNaturalist, as the authors answered in facebookresearch/deit's issues:
# AdamW, rate 7.5e-5 at a batch of 768, decay .05, 360 epochs, erasing .1, drop
# path .1. Not published: the smallest rate, here the warm-up's.
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=360, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=7.5e-5))
param_scheduler = [
    dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-6)
]
default_hooks = dict(global_batch=dict(batch_size=768))
