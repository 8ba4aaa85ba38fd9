# DeiT-B at 224, 300 epochs.
#   mim train mmpretrain configs/deit_base.py
# Published on 16 GPUs x 64, float16.
# Published top-1 / top-5: 81.846 / 95.594 (facebookresearch/deit, README).
_base_ = ['_base_/deit.py', '_base_/imagenet_224.py', '_base_/recipe.py']
