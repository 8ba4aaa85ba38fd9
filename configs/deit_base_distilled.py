# DeiT-B distilled at 224, 300 epochs.
#   mim train mmpretrain configs/deit_base_distilled.py
# Published on 16 GPUs x 64, float16.
# Published top-1 / top-5: 83.372 / 96.482 (facebookresearch/deit, README).
_base_ = ['_base_/deit_distilled.py', '_base_/imagenet_224.py', '_base_/recipe.py']
