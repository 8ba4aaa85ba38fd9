# RepViT-M2.3 distilled at 224, 450 epochs.
# Published top-1: 83.7 (THU-MIG/RepViT, README), on 8 GPUs x 128, float16:
#   mim train mmpretrain configs/students/repvit_m2_3_450e.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/repvit_m2_3_450e.py
_base_ = ['repvit_m2_3.py']

train_cfg = dict(max_epochs=450)
