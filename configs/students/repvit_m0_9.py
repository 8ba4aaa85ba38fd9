# RepViT-M0.9 distilled at 224, 300 epochs.
# Published top-1: 78.7 (THU-MIG/RepViT, README), on 6 GPUs x 256, float16:
#   mim train mmpretrain configs/students/repvit_m0_9.py --launcher pytorch --gpus 6
# On 1 GPU gradients are accumulated to the same batch of 1536:
#   mim train mmpretrain configs/students/repvit_m0_9.py
_base_ = ['_base_/repvit.py']

model = dict(model_name='repvit_m0_9')
train_dataloader = dict(sampler=dict(processes=6))
default_hooks = dict(global_batch=dict(batch_size=1536))
optim_wrapper = dict(optimizer=dict(lr=3e-3))
