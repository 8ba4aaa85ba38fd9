# DeiT-B fine-tuned at 384 from deit_base.py, 30 epochs, drop path off.
# Published top-1 / top-5: 82.890 / 96.222 (facebookresearch/deit, README), on 16 GPUs x 32, float16:
#   mim train mmpretrain configs/deit_base_384.py --launcher slurm --gpus 16 \
#       --gpus-per-node 8 --partition PARTITION
# On 1 GPU gradients are accumulated to the same batch of 512:
#   mim train mmpretrain configs/deit_base_384.py
_base_ = ['_base_/deit.py', '_base_/imagenet_384.py', '_base_/finetune.py']

model = dict(backbone=dict(img_size=384, drop_path_rate=0.0))
load_from = 'work_dirs/deit_base/epoch_300.pth'
