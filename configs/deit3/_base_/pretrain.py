# 800 epochs at a global batch of 2048 with LAMB, at a rate that is not scaled by the batch
# (facebookresearch/deit at 7e160fe, README_revenge.md; arXiv 2204.07118).
_base_ = ['../../_base_/recipe.py']

train_cfg = dict(max_epochs=800)
# timm's; the reference's is apex' fused one, of the same rule. It clips all gradients to a norm of 1.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='timm.optim.Lamb', lr=3e-3, eps=1e-8, weight_decay=0.05)
)
default_hooks = dict(global_batch=dict(batch_size=2048))
