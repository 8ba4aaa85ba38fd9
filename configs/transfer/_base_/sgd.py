# CIFAR-10 and Cars, as the authors answered in facebookresearch/deit's issues:
# SGD with Nesterov .9, rate .01, batch 768, decay 1e-4, 1000 epochs, no
# erasing, no drop path. Not published, and as in the ImageNet recipe here:
# warm-up, mixup, cutmix and RandAugment.
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=1000, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='SGD',
        lr=.01,
        momentum=.9,
        nesterov=True,
        weight_decay=1e-4))
default_hooks = dict(global_batch=dict(batch_size=768))
