# DeiT-III L at 192, 400 epochs.
# No figure is published beside the code. On 32 GPUs x 64, float16:
#   mim train mmpretrain configs/deit3/deit3_large_192_400e.py --launcher slurm --gpus 32 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_large_192_400e.py
# Its command is not published: drop path and decay are of naver-ai/rope-vit at ce85c2e, which trains such
# blocks for 400 epochs.
_base_ = ['deit3_large_192.py']

model = dict(backbone=dict(drop_path_rate=0.4))
optim_wrapper = dict(optimizer=dict(weight_decay=0.03))
train_cfg = dict(max_epochs=400)
