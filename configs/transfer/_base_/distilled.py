# What a distilled model changes in the config of the plain one, which it takes
# by `model = _base_.pop('distilled')`. There is no teacher: both heads learn
# from the labels, on the mean of their logits.
#
# Drop path is off, where the plain models of AdamW have .1. The reference
# (facebookresearch/deit at 7e160fe) trains the mean of both heads only in eval
# mode, in which drop path is off and in which its published models were
# fine-tuned. In train mode, its default there, a distilled model returns a
# tuple and the loss fails.
#
# The author advises to keep distilling (facebookresearch/deit's issue 45),
# which takes a teacher of the same classes; none is published. Who has one
# sets `model.type='DistilledClassifier'`, `model.teacher` and a
# `DistillationLoss` as `model.head.loss`, as ../../_base_/deit_distilled.py does.
distilled = dict(
    backbone=dict(distilled=True, drop_path_rate=0.0),
    neck=dict(type='DistillationTokenNeck'),
    head=dict(type='DeiTDualHead'),
)
