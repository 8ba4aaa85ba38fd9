# DeiT-B distilled on CIFAR-10 at 384, from ../deit_base_distilled_384.py.
# Published top-1: 99.2 (arXiv 2012.12877, table 7). The hardware is not published; on 24 GPUs x 32:
#   mim train mmpretrain configs/transfer/deit_base_distilled_384_cifar10.py --launcher slurm --gpus 24 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 768:
#   mim train mmpretrain configs/transfer/deit_base_distilled_384_cifar10.py
_base_ = ['deit_base_384_cifar10.py', '_base_/distilled.py']

model = _base_.pop('distilled')
load_from = 'work_dirs/deit_base_distilled_384/epoch_30.pth'
