# DeiT-S at 224, 300 epochs.
# Published top-1 / top-5: 79.854 / 94.968 (facebookresearch/deit, README), on 4 GPUs x 256, float16:
#   mim train mmpretrain configs/deit_small.py --launcher pytorch --gpus 4
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_small.py
_base_ = ['_base_/deit.py', '_base_/imagenet_224.py', '_base_/recipe.py']

model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
train_dataloader = dict(batch_size=256, sampler=dict(processes=4, batch_size=256))
