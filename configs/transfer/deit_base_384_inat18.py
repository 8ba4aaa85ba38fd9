# DeiT-B on iNaturalist 2018 at 384, from ../deit_base_384.py.
# Published top-1: 79.5 (arXiv 2012.12877, table 7). The hardware is not published; on 24 GPUs x 32:
#   mim train mmpretrain configs/transfer/deit_base_384_inat18.py --launcher slurm --gpus 24 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 768:
#   mim train mmpretrain configs/transfer/deit_base_384_inat18.py
_base_ = ['../_base_/deit.py', '../_base_/imagenet_384.py', '_base_/data_sets.py', '_base_/adamw_inat.py']

model = dict(backbone=dict(img_size=384, drop_path_rate=0.1), head=dict(num_classes=8142))
data_preprocessor = dict(num_classes=8142, erasing=0.1)
train_dataloader, val_dataloader = _base_.pop('data_sets').inat18
train_dataloader.sampler = dict(processes=24)
train_dataloader.dataset.pipeline = _base_.train_pipeline
val_dataloader.dataset.pipeline = _base_.test_pipeline
test_dataloader = val_dataloader
load_from = 'work_dirs/deit_base_384/epoch_30.pth'
