# DeiT-III H (patches of 14) at 160, 800 epochs; deit3_huge.py goes on at 224.
# Published top-1: 83.5 (facebookresearch/deit, README_revenge.md), on 32 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_huge_160.py --launcher slurm --gpus 32 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_huge_160.py
_base_ = ['_base_/model.py', '_base_/three_augment_160.py', '_base_/pretrain.py']

model = dict(
    backbone=dict(arch='huge', img_size=160, drop_path_rate=0.6, patch_cfg=dict(padding=0)),
    head=dict(in_channels=1280),
)
train_dataloader = dict(batch_size=64, sampler=dict(processes=32, batch_size=64))
