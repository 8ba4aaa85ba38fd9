# DeiT-B distilled at 224, 300 epochs.
# Published top-1 / top-5: 83.372 / 96.482 (facebookresearch/deit, README), on 16 GPUs x 64, float16:
#   mim train mmpretrain configs/deit_base_distilled.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_base_distilled.py
_base_ = ['_base_/deit_distilled.py', '_base_/imagenet_224.py', '_base_/recipe.py']
