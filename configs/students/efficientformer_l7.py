# EfficientFormer-L7 distilled at 224, 300 epochs.
# Published top-1: 83.3 (snap-research/EfficientFormer, README), on 8 GPUs x 128, float32:
#   mim train mmpretrain configs/students/efficientformer_l7.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/efficientformer_l7.py
_base_ = ['_base_/efficientformer.py']

model = dict(model_name='efficientformer_l7')
