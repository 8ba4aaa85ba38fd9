# A teacher of your own classes: any classifier of timm or of mmpretrain's hub, fine-tuned on your own images.
#   mim train mmpretrain configs/finetune/teacher_folder.py --cfg-options data_root=FOLDER teacher=resnet50
# It starts from its published weights, from load_from=FILE, or from random ones: pretrained=False. Then it
# teaches:
#   mim train mmpretrain configs/finetune/deit_small_distilled_folder.py --cfg-options data_root=FOLDER \
#       teacher_checkpoint=work_dirs/teacher_folder
_base_ = '_base_/folder.py'

teacher = 'resnet50'
# The model is the teacher, with as many classes as the data.
