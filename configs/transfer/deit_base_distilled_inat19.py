# DeiT-B distilled on iNaturalist 2019 at 224, from ../deit_base_distilled.py.
# Published top-1: 78.4 (arXiv 2012.12877, table 7). The hardware is not published; on 8 GPUs x 96:
#   mim train mmpretrain configs/transfer/deit_base_distilled_inat19.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 768:
#   mim train mmpretrain configs/transfer/deit_base_distilled_inat19.py
_base_ = ['deit_base_inat19.py', '_base_/distilled.py']

model = _base_.pop('distilled')
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
