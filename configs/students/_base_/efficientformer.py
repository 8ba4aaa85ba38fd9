# EfficientFormer (arXiv 2206.01191), as snap-research/EfficientFormer at d01da42 trains it: 300 epochs at a
# batch of 1024 and a rate of 1e-3, batch norms over all GPUs. Attention biases decay.
_base_ = ['distilled.py']

# timm leaves these as torch draws them, 0.7 to 5 times as large.
model = dict(init_cfg=dict(type='NamedTruncNormal', names=r'\.mlp\.fc\d', layer='Conv2d', std=0.02))

train_dataloader = dict(batch_size=128, sampler=dict(processes=8, batch_size=128))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    clip_grad=dict(type='agc', clip_factor=0.01, exclude_head=False),
)
param_scheduler = [dict(type='DeiTLR', warmup_epochs=5, warmup_lr=1e-5, min_lr=1e-5)]
sync_bn = 'torch'
