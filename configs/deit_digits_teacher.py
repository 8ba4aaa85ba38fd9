# The teacher of deit_digits_distilled.py. No figure is published: it is a demo.
# Its checkpoint, deit_digits_teacher.pth, is the published form (weights alone)
# of the last epoch of
#   mim train mmpretrain configs/deit_digits_teacher.py
_base_ = ['_base_/digits.py', '_base_/digits_teacher.py']

model = _base_.teacher
train_cfg = dict(max_epochs=60)
default_hooks = dict(checkpoint=dict(published_keys=['state_dict']))
