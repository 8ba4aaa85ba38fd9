# The teacher of deit_digits_distilled.py. Its checkpoint,
# deit_digits_teacher.pth, is the published file of the last epoch of
#   mim train mmpretrain configs/deit_digits_teacher.py
_base_ = ['_base_/digits.py', '_base_/digits_teacher.py']

model = _base_.teacher
train_cfg = dict(max_epochs=60)
default_hooks = dict(checkpoint=dict(published_keys=['state_dict']))
