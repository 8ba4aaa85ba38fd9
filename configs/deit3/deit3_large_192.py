# DeiT-III L at 192, 800 epochs; deit3_large.py goes on at 224.
# Published top-1: 84.0 (facebookresearch/deit, README_revenge.md), on 32 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_large_192.py --launcher slurm --gpus 32 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_large_192.py
_base_ = ['_base_/model.py', '_base_/three_augment_192.py', '_base_/pretrain.py']

model = dict(backbone=dict(arch='large', img_size=192, drop_path_rate=0.45), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=64, sampler=dict(processes=32, batch_size=64))
