# Hard distillation on the class token of DeiT-Ti, without a token.
#   mim train mmpretrain configs/deit_tiny_hard_cls.py
# 4 GPUs x 256, float16.
# Published top-1: 74.3 (arXiv 2012.12877, table 3).
_base_ = ['_base_/deit_distilled_cls.py', '_base_/imagenet_224.py', '_base_/recipe.py']

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=192))
train_dataloader = dict(batch_size=256)
