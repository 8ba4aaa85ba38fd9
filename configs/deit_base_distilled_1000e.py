# DeiT-B distilled at 224, 1000 epochs.
# Published top-1: 84.2 (arXiv 2012.12877, table 5). On 16 GPUs x 64, float16:
#   mim train mmpretrain configs/deit_base_distilled_1000e.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_base_distilled_1000e.py
_base_ = ['deit_base_distilled.py']

train_cfg = dict(max_epochs=1000)
