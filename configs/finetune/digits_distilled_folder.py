# A small distilled DeiT of the digits in folders. No figure is published: it is a demo.
#   deit-plugin digits data/digits
#   mim train mmpretrain configs/finetune/digits_teacher_folder.py
#   mim train mmpretrain configs/finetune/digits_distilled_folder.py
_base_ = ['../_base_/deit_distilled.py', '_base_/digits.py']

teacher_checkpoint = 'work_dirs/digits_teacher_folder'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=64, num_layers=4, num_heads=4, feedforward_channels=256),
        patch_size=4,
    ),
    head=dict(in_channels=64),
    train_cfg=None,  # nothing is mixed
)
