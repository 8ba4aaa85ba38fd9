# A convolutional teacher of the digits in folders. No figure is published: it is a demo.
#   deit-plugin digits data/digits
#   mim train mmpretrain configs/finetune/digits_teacher_folder.py
_base_ = '_base_/digits.py'

# A name suffices, too, such as resnet18: this one is narrow, and made for small images.
teacher = dict(
    _delete_=True,
    type='TimmClassifier',
    model_name='resnet18',
    channels=[16, 32, 64, 64],
    output_stride=8,
)
train_cfg = dict(max_epochs=20)
