# DeiT-III B fine-tuned at 224, 20 epochs, from deit3_base_192.py.
# Published top-1: 83.8 (facebookresearch/deit, README_revenge.md), on 8 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_base.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit3/deit3_base.py
_base_ = ['_base_/model_finetuned.py', '_base_/rand_augment_224.py', '_base_/finetune.py']

model = dict(backbone=dict(arch='base', drop_path_rate=0.2), head=dict(in_channels=768))
train_dataloader = dict(batch_size=64, sampler=dict(processes=8, batch_size=64))
load_from = 'work_dirs/deit3_base_192/epoch_800.pth'
