# DeiT-B distilled, fine-tuned at 384 from deit_base_distilled_1000e.py.
# Published top-1 / top-5: 85.224 / 97.186 (facebookresearch/deit, README). On 16 GPUs x 32, float16:
#   mim train mmpretrain configs/deit_base_distilled_384_1000e.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit_base_distilled_384_1000e.py
_base_ = ['deit_base_distilled_384.py']

load_from = 'work_dirs/deit_base_distilled_1000e/epoch_1000.pth'
