# EfficientFormerV2-S1 distilled at 224, 300 epochs.
# Published top-1: 79.0 (snap-research/EfficientFormer, README), on 8 GPUs x 128, float32:
#   mim train mmpretrain configs/students/efficientformerv2_s1.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/efficientformerv2_s1.py
_base_ = ['_base_/efficientformerv2.py']

model = dict(model_name='efficientformerv2_s1', drop_path_rate=0.0)
