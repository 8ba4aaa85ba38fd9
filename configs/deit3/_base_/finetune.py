# Fine-tuning on ImageNet-1k: 20 epochs at a global batch of 512 with AdamW (README_revenge.md). The rate
# rises from 1e-6 to 1e-5, and stays.
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=0.1))
default_hooks = dict(global_batch=dict(batch_size=512))
