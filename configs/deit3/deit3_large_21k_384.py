# DeiT-III L of ImageNet-21k, fine-tuned at 384, 20 epochs, from deit3_large_21k.py.
# Published top-1: 87.7 (facebookresearch/deit, README_revenge.md), on 32 GPUs x 16, float16:
#   mim train mmpretrain configs/deit3/deit3_large_21k_384.py --launcher slurm --gpus 32 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit3/deit3_large_21k_384.py
# Its command is not published: these are the values of deit3_large_384.py.
_base_ = ['_base_/model_finetuned.py', '_base_/rand_augment_384.py', '_base_/finetune.py']

model = dict(backbone=dict(arch='large', img_size=384, drop_path_rate=0.4), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=16, sampler=dict(processes=32, batch_size=16))
load_from = 'work_dirs/deit3_large_21k/epoch_50.pth'
