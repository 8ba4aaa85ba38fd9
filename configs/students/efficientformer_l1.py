# EfficientFormer-L1 distilled at 224, 300 epochs.
# Published top-1: 79.2 (snap-research/EfficientFormer, README), on 8 GPUs x 128, float32:
#   mim train mmpretrain configs/students/efficientformer_l1.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/efficientformer_l1.py
_base_ = ['_base_/efficientformer.py']

model = dict(model_name='efficientformer_l1')
