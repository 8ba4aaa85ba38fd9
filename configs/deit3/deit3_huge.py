# DeiT-III H fine-tuned at 224, 20 epochs, from deit3_huge_160.py.
# Published top-1: 85.2 (facebookresearch/deit, README_revenge.md), on 16 GPUs x 32, float16:
#   mim train mmpretrain configs/deit3/deit3_huge.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit3/deit3_huge.py
_base_ = ['_base_/model_finetuned.py', '_base_/rand_augment_224.py', '_base_/finetune.py']

model = dict(backbone=dict(arch='huge', drop_path_rate=0.55), head=dict(in_channels=1280))
train_dataloader = dict(batch_size=32, sampler=dict(processes=16, batch_size=32))
load_from = 'work_dirs/deit3_huge_160/epoch_800.pth'
