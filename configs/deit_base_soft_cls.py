# "Usual" soft distillation on the class token of DeiT-B, without a distillation token.
# Published top-1: 81.8 (arXiv 2012.12877, table 3). On 16 GPUs x 64, float16:
#   mim train mmpretrain configs/deit_base_soft_cls.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/deit_base_soft_cls.py
_base_ = ['_base_/deit_distilled_cls.py', '_base_/imagenet_224.py', '_base_/recipe.py']

model = dict(head=dict(loss=dict(mode='soft', tau=3.0, alpha=0.1)))
