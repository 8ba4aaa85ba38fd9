# The distilled DeiT-B without a teacher: both heads learn from the labels, on
# the mean of their logits, as the reference's fine-tuning code does. The
# author advises to keep distilling (facebookresearch/deit's issue 45), which
# takes a teacher of the same classes; none is published. Who has one sets
# `model.type='DistilledClassifier'`, `model.teacher` and a `DistillationLoss`
# as `model.head.loss`, as configs/_base_/deit_distilled.py does.
_base_ = ['../../_base_/deit.py']

model = dict(
    backbone=dict(distilled=True),
    neck=dict(type='DistillationTokenNeck'),
    head=dict(type='DeiTDualHead'),
)
