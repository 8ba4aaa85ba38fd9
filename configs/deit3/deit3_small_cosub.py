# DeiT-III S at 224 by co-training of two submodels (arXiv 2212.04884), 800 epochs.
# No figure is published beside the code. On 8 GPUs x 256, float16:
#   mim train mmpretrain configs/deit3/deit3_small_cosub.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit3/deit3_small_cosub.py
# Its command is not published: these are the values of deit3_small.py.
_base_ = ['deit3_small.py']

model = dict(type='CosubClassifier', head=dict(loss=dict(target_threshold=None)))
