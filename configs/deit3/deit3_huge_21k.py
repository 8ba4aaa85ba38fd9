# DeiT-III H of ImageNet-21k, fine-tuned on ImageNet-1k at 224, 50 epochs.
# Published top-1: 87.2 (facebookresearch/deit, README_revenge.md), on 32 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_huge_21k.py --launcher slurm --gpus 32 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_huge_21k.py
# The weights of 21k alone are not published: `load_from` is a file of yours.
_base_ = ['_base_/model_from_21k.py', '_base_/simple_crop_224.py', '_base_/from_21k.py']

model = dict(backbone=dict(arch='huge', drop_path_rate=0.45), head=dict(in_channels=1280))
train_dataloader = dict(batch_size=64, sampler=dict(processes=32, batch_size=64))
load_from = 'data/deit3_huge_of_21k.pth'
