# RepViT-M1.0 distilled at 224, 300 epochs.
# Published top-1: 80.0 (THU-MIG/RepViT, README), on 8 GPUs x 256, float16:
#   mim train mmpretrain configs/students/repvit_m1_0.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/students/repvit_m1_0.py
_base_ = ['_base_/repvit.py']

model = dict(model_name='repvit_m1_0')
