# RepViT-M0.9 distilled at 224, 450 epochs.
# Published top-1: 79.1 (THU-MIG/RepViT, README), on 8 GPUs x 256, float16:
#   mim train mmpretrain configs/students/repvit_m0_9_450e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/students/repvit_m0_9_450e.py
_base_ = ['_base_/repvit.py']

model = dict(model_name='repvit_m0_9')
train_cfg = dict(max_epochs=450)
