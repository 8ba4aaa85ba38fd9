# DeiT-III H (patches of 14) at 160, 400 epochs.
# No figure is published beside the code. On 32 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_huge_160_400e.py --launcher slurm --gpus 32 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_huge_160_400e.py
# Its command is not published: these are the values of deit3_huge_160.py.
_base_ = ['deit3_huge_160.py']

train_cfg = dict(max_epochs=400)
