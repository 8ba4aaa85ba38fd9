# DeiT-III S of ImageNet-21k, fine-tuned at 384, 20 epochs, from deit3_small_21k.py.
# Published top-1: 84.8 (facebookresearch/deit, README_revenge.md), on 8 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_small_21k_384.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit3/deit3_small_21k_384.py
# Its command is not published: these are the values of deit3_small_384.py.
_base_ = ['_base_/model_finetuned.py', '_base_/rand_augment_384.py', '_base_/finetune.py']

model = dict(backbone=dict(img_size=384, drop_path_rate=0.0))
train_dataloader = dict(batch_size=64, sampler=dict(processes=8, batch_size=64))
load_from = 'work_dirs/deit3_small_21k/epoch_50.pth'
