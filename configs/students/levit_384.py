# LeViT-384 distilled at 224, 1000 epochs.
# Published top-1: 82.6 (facebookresearch/LeViT, README), on 8 GPUs x 256, float32:
#   mim train mmpretrain configs/students/levit_384.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/students/levit_384.py
_base_ = ['_base_/levit.py']

model = dict(model_name='levit_384', drop_path_rate=0.1)
