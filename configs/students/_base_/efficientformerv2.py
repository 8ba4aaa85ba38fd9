# EfficientFormer V2 (arXiv 2212.08059), trained as the first. Its layer scales decay: they are (C, 1, 1) in
# snap-research/EfficientFormer at d01da42, and (C,) in timm.
_base_ = ['efficientformer.py']

optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.gamma': dict(decay_mult=1.0)}))
