# Fine-tuning at another resolution: 30 epochs at a global batch of 512, at a
# rate that stays constant after the warm-up (facebookresearch/deit at
# 7e160fe).
_base_ = ['recipe.py']

train_cfg = dict(max_epochs=30)
optim_wrapper = dict(optimizer=dict(lr=5e-6, weight_decay=1e-8))
param_scheduler = [dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=5e-6)]
default_hooks = dict(global_batch=dict(batch_size=512))
