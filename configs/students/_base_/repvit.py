# RepViT (arXiv 2307.09283), as THU-MIG/RepViT at 298f420 trains it: 300 epochs at a rate of 1e-3 for 512
# images, in float16. The logs there have three rates, which are these batches; README has 2048 for all.
_base_ = ['distilled.py']

train_dataloader = dict(batch_size=256, sampler=dict(processes=8, batch_size=256))
default_hooks = dict(global_batch=dict(batch_size=2048))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='float16',
    loss_scale='dynamic',
    optimizer=dict(lr=4e-3),
    clip_grad=dict(type='agc', clip_factor=0.02, exclude_head=False),
)
