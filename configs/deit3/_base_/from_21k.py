# Fine-tuning from ImageNet-21k on ImageNet-1k: 50 epochs (README_revenge.md).
_base_ = ['pretrain.py']

train_cfg = dict(max_epochs=50)
optim_wrapper = dict(optimizer=dict(lr=3e-4, weight_decay=0.02))
