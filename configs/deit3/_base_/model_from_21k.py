# Fine-tuned from ImageNet-21k: nothing but cutmix mixes.
_base_ = ['model_finetuned.py']

model = dict(train_cfg=dict(augments=[dict(type='CutMix', alpha=1.0)]))
