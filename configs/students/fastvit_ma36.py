# FastViT-MA36 distilled on its one head at 256, 310 epochs.
# Published top-1: 84.6 (apple/ml-fastvit, README), on 8 GPUs x 128, float16:
#   mim train mmpretrain configs/students/fastvit_ma36.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/fastvit_ma36.py
_base_ = ['fastvit_sa36.py']

model = dict(model_name='fastvit_ma36', drop_path_rate=0.2)
