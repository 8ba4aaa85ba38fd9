# RepViT-M1.1 distilled at 224, 450 epochs.
# Published top-1: 81.2 (THU-MIG/RepViT, README), on 8 GPUs x 256, float16:
#   mim train mmpretrain configs/students/repvit_m1_1_450e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/students/repvit_m1_1_450e.py
_base_ = ['repvit_m1_1.py']

train_cfg = dict(max_epochs=450)
