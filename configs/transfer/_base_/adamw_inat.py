# iNaturalist, as the author answered in facebookresearch/deit's issues 105 and
# 141: AdamW, rate 7.5e-5 at a batch of 768, decay .05, 360 epochs, erasing .1,
# drop path .1, all else as on ImageNet.
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=360, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=7.5e-5))
default_hooks = dict(global_batch=dict(batch_size=768))
