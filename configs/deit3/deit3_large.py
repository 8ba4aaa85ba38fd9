# DeiT-III L fine-tuned at 224, 20 epochs, from deit3_large_192.py.
# Published top-1: 84.9 (facebookresearch/deit, README_revenge.md), on 8 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_large.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit3/deit3_large.py
_base_ = ['_base_/model_finetuned.py', '_base_/rand_augment_224.py', '_base_/finetune.py']

model = dict(backbone=dict(arch='large', drop_path_rate=0.45), head=dict(in_channels=1024))
train_dataloader = dict(batch_size=64, sampler=dict(processes=8, batch_size=64))
load_from = 'work_dirs/deit3_large_192/epoch_800.pth'
