# DeiT-III S at 224, 400 epochs.
# No figure is published beside the code, on 8 GPUs x 256, float16:
#   mim train mmpretrain configs/deit3/deit3_small_400e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_small_400e.py
_base_ = ['deit3_small.py']

train_cfg = dict(max_epochs=400)
