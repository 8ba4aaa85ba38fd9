# Hard distillation on the class token of DeiT-S, without a token.
#   mim train mmpretrain configs/deit_small_hard_cls.py
# 4 GPUs x 256, float16.
# Published top-1: 80.9 (arXiv 2012.12877, table 3).
_base_ = ['_base_/deit_distilled_cls.py', '_base_/imagenet_224.py', '_base_/recipe.py']

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
train_dataloader = dict(batch_size=256)
