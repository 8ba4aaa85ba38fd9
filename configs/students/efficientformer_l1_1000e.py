# EfficientFormer-L1 distilled at 224, 1000 epochs.
# Published top-1: 80.2 (snap-research/EfficientFormer, README), on 8 GPUs x 128, float32:
#   mim train mmpretrain configs/students/efficientformer_l1_1000e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/efficientformer_l1_1000e.py
_base_ = ['efficientformer_l1.py']

train_cfg = dict(max_epochs=1000)
