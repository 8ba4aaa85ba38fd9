# DeiT-B distilled at 224, 1000 epochs.
#   mim train mmpretrain configs/deit_base_distilled_1000e.py
# Published on 16 GPUs x 64, float16.
# Published top-1: 84.2 (arXiv 2012.12877, table 5).
_base_ = ['deit_base_distilled.py']

train_cfg = dict(max_epochs=1000)
