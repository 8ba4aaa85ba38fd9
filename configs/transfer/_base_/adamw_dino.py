# NOT the authors' values, which are not published for CIFAR-100 and Flowers:
# those of DINO's ViT-B (Caron et al. 2021, arXiv 2104.14294): AdamW, rate
# 7.5e-6 (5e-6 to 7.5e-6), batch 768, decay .05, 1000 epochs. Not published for
# either: the smallest rate, here the warm-up's; erasing and drop path, here as
# the authors have them for CIFAR-10, none.
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=1000, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=7.5e-6))
param_scheduler = [
    dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-6, min_lr=1e-6)
]
default_hooks = dict(global_batch=dict(batch_size=768))
