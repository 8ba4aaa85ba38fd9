# DeiT-III M at 224, 800 epochs.
# Published top-1: 83.0 (facebookresearch/deit, README_revenge.md), on 8 GPUs x 256, float16:
#   mim train mmpretrain configs/deit3/deit3_medium.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_medium.py
# Its command is not published: these are the values of deit3_small.py.
_base_ = ['_base_/model.py', '_base_/three_augment_224.py', '_base_/pretrain.py']

model = dict(backbone=dict(arch='medium', drop_path_rate=0.05), head=dict(in_channels=512))
train_dataloader = dict(batch_size=256, sampler=dict(processes=8, batch_size=256))
optim_wrapper = dict(optimizer=dict(lr=4e-3))
