# CIFAR-10 and Cars, as the author answered in facebookresearch/deit's issue
# 45: SGD, rate .01, batch 768, decay 1e-4, 1000 epochs, no erasing, no drop
# path, all else as on ImageNet. Nesterov's momentum .9 is the reference's SGD.
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=1000, val_interval=10)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
)
default_hooks = dict(global_batch=dict(batch_size=768))
