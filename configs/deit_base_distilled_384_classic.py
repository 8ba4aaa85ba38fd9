# DeiT-B distilled, fine-tuned at 384 by its labels alone: the class token
# under an ordinary head, without a teacher. From deit_base_distilled.py.
# No figure is published; section 4 of arXiv 2012.12877 finds it less accurate
# than with the teacher. On 16 GPUs x 32, float16:
#   mim train mmpretrain configs/deit_base_distilled_384_classic.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit_base_distilled_384_classic.py
_base_ = ['_base_/deit.py', '_base_/imagenet_384.py', '_base_/finetune.py']

model = dict(
    backbone=dict(distilled=True, img_size=384, drop_path_rate=0.0),
    neck=dict(type='DistillationTokenNeck', token='cls'),
)
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
