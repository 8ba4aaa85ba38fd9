# DeiT-III M at 224, 400 epochs.
# No figure is published beside the code. On 8 GPUs x 256, float16:
#   mim train mmpretrain configs/deit3/deit3_medium_400e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_medium_400e.py
# Its command is not published: these are the values of deit3_small_400e.py.
_base_ = ['deit3_medium.py']

model = dict(backbone=dict(drop_path_rate=0.0))
optim_wrapper = dict(optimizer=dict(weight_decay=0.03))
train_cfg = dict(max_epochs=400)
