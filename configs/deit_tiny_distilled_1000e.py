# DeiT-Ti distilled at 224, 1000 epochs.
#   mim train mmpretrain configs/deit_tiny_distilled_1000e.py
# Published on 4 GPUs x 256, float16.
# Published top-1: 76.6 (arXiv 2012.12877, table 5).
_base_ = ['deit_tiny_distilled.py']

train_cfg = dict(max_epochs=1000)
