# DeiT-III B at 192, 800 epochs; deit3_base.py goes on at 224.
# Published top-1: 82.8 (facebookresearch/deit, README_revenge.md), on 8 GPUs x 256, float16:
#   mim train mmpretrain configs/deit3/deit3_base_192.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_base_192.py
_base_ = ['_base_/model.py', '_base_/three_augment_192.py', '_base_/pretrain.py']

model = dict(backbone=dict(arch='base', img_size=192, drop_path_rate=0.2), head=dict(in_channels=768))
train_dataloader = dict(batch_size=256, sampler=dict(processes=8, batch_size=256))
