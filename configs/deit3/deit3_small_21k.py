# DeiT-III S of ImageNet-21k, fine-tuned on ImageNet-1k at 224, 50 epochs.
# Published top-1: 83.1 (facebookresearch/deit, README_revenge.md), on 16 GPUs x 128, float16:
#   mim train mmpretrain configs/deit3/deit3_small_21k.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_small_21k.py
# The weights of 21k alone are not published: `load_from` is a file of yours.
_base_ = ['_base_/model_from_21k.py', '_base_/simple_crop_224.py', '_base_/from_21k.py']

train_dataloader = dict(batch_size=128, sampler=dict(processes=16, batch_size=128))
load_from = 'data/deit3_small_of_21k.pth'
