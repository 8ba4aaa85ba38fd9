# DeiT-S distilled at 224, 1000 epochs.
# Published top-1: 82.6 (arXiv 2012.12877, table 5). On 4 GPUs x 256, float16:
#   mim train mmpretrain configs/deit_small_distilled_1000e.py --launcher pytorch --gpus 4
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_small_distilled_1000e.py
_base_ = ['deit_small_distilled.py']

train_cfg = dict(max_epochs=1000)
