# FastViT-SA36 distilled on its one head at 256, 310 epochs.
# Published top-1: 84.2 (apple/ml-fastvit, README), on 8 GPUs x 128, float16:
#   mim train mmpretrain configs/students/fastvit_sa36.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 1024:
#   mim train mmpretrain configs/students/fastvit_sa36.py
_base_ = ['_base_/fastvit.py']

model = dict(model_name='fastvit_sa36', drop_path_rate=0.1)

test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 269  # crop ratio 0.95
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
