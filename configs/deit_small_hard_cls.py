# Hard distillation on the class token of DeiT-S, without a distillation token.
# Published top-1: 80.9 (arXiv 2012.12877, table 3). On 4 GPUs x 256, float16:
#   mim train mmpretrain configs/deit_small_hard_cls.py --launcher pytorch --gpus 4
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_small_hard_cls.py
_base_ = ['_base_/deit_distilled_cls.py', '_base_/imagenet_224.py', '_base_/recipe.py']

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
train_dataloader = dict(batch_size=256, sampler=dict(processes=4, batch_size=256))
