# FastViT-SA24 distilled on its one head at 256, 310 epochs.
# Published top-1: 83.4 (apple/ml-fastvit, README), on 8 GPUs x 128, float16:
#   mim train mmpretrain configs/students/fastvit_sa24.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/fastvit_sa24.py
_base_ = ['_base_/fastvit.py']

model = dict(model_name='fastvit_sa24', drop_path_rate=0.05)
