# Hard distillation on the class token of DeiT-B, without a token.
#   mim train mmpretrain configs/deit_base_hard_cls.py
# 16 GPUs x 64, float16.
# Published top-1: 83.0 (arXiv 2012.12877, table 3).
_base_ = ['_base_/deit_distilled_cls.py', '_base_/imagenet_224.py', '_base_/recipe.py']
