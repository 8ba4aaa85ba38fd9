# LeViT (arXiv 2104.01136), as facebookresearch/LeViT at 3772b8e trains it: 1000 epochs at a batch of 2048 and
# a rate of 5e-4 for 512 images.
_base_ = ['distilled.py']

train_cfg = dict(max_epochs=1000)
train_dataloader = dict(batch_size=256, sampler=dict(processes=8, batch_size=256))
default_hooks = dict(global_batch=dict(batch_size=2048))
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(custom_keys={'attention_biases': dict(decay_mult=0.0)}),
    clip_grad=dict(type='agc', clip_factor=0.01, exclude_head=False),
)
