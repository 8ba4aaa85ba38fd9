# DeiT-B distilled, fine-tuned at 384 WITH the teacher, which sees 384 too:
# both heads learn, 30 epochs. From deit_base_distilled.py.
# Published top-1: 84.5 (arXiv 2012.12877, tables 3 and 5). On 16 GPUs x 32, float16:
#   mim train mmpretrain configs/deit_base_distilled_384.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit_base_distilled_384.py
_base_ = ['_base_/deit_distilled.py', '_base_/imagenet_384.py', '_base_/finetune.py']

model = dict(backbone=dict(img_size=384, drop_path_rate=0.0))
load_from = 'work_dirs/deit_base_distilled/epoch_300.pth'
