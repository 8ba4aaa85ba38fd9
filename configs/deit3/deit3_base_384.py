# DeiT-III B fine-tuned at 384, 20 epochs, from deit3_base_192.py.
# Published top-1: 85.0 (facebookresearch/deit, README_revenge.md), on 16 GPUs x 32, float16:
#   mim train mmpretrain configs/deit3/deit3_base_384.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit3/deit3_base_384.py
_base_ = ['_base_/model_finetuned.py', '_base_/rand_augment_384.py', '_base_/finetune.py']

model = dict(backbone=dict(arch='base', img_size=384, drop_path_rate=0.15), head=dict(in_channels=768))
train_dataloader = dict(batch_size=32, sampler=dict(processes=16, batch_size=32))
load_from = 'work_dirs/deit3_base_192/epoch_800.pth'
