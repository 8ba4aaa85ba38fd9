# The distilled DeiT-B without a teacher, for the paper names none that knows
# the classes of another dataset: both heads learn from the labels, on the mean
# of their logits, as the reference's fine-tuning does.
_base_ = ['../../_base_/deit.py']

model = dict(
    backbone=dict(distilled=True),
    neck=dict(type='DistillationTokenNeck'),
    head=dict(type='DeiTDualHead'))
