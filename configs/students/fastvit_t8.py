# FastViT-T8 distilled on its one head at 256, 310 epochs.
# Published top-1: 77.2 (apple/ml-fastvit, README), on 8 GPUs x 128, float16:
#   mim train mmpretrain configs/students/fastvit_t8.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/fastvit_t8.py
_base_ = ['_base_/fastvit.py']

model = dict(
    model_name='fastvit_t8',
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]),
)
