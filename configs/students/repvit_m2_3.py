# RepViT-M2.3 distilled at 224, 300 epochs.
# Published top-1: 83.3 (THU-MIG/RepViT, README), on 8 GPUs x 128, float16:
#   mim train mmpretrain configs/students/repvit_m2_3.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/repvit_m2_3.py
_base_ = ['_base_/repvit.py']

model = dict(model_name='repvit_m2_3')
train_dataloader = dict(batch_size=128, sampler=dict(batch_size=128))
default_hooks = dict(global_batch=dict(batch_size=1024))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
