# EfficientFormerV2-S0 distilled at 224, 450 epochs.
# Published top-1: 76.2 (snap-research/EfficientFormer, README), on 8 GPUs x 128, float32:
#   mim train mmpretrain configs/students/efficientformerv2_s0_450e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/efficientformerv2_s0_450e.py
_base_ = ['efficientformerv2_s0.py']

train_cfg = dict(max_epochs=450)
