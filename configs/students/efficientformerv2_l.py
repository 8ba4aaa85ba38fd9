# EfficientFormerV2-L distilled at 224, 300 epochs.
# Published top-1: 83.3 (snap-research/EfficientFormer, README), on 8 GPUs x 128, float32:
#   mim train mmpretrain configs/students/efficientformerv2_l.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/efficientformerv2_l.py
_base_ = ['_base_/efficientformerv2.py']

model = dict(model_name='efficientformerv2_l', drop_path_rate=0.1)
