# DeiT-Ti at 224, 300 epochs.
# Published top-1 / top-5: 72.202 / 91.124 (facebookresearch/deit, README), on 4 GPUs x 256, float16:
#   mim train mmpretrain configs/deit_tiny.py --launcher pytorch --gpus 4
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_tiny.py
_base_ = ['_base_/deit.py', '_base_/imagenet_224.py', '_base_/recipe.py']

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=192))
train_dataloader = dict(batch_size=256, sampler=dict(processes=4, batch_size=256))
