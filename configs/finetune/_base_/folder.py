# Fine-tuning on your own images. What you set, in a config of yours or after --cfg-options:
_base_ = ['../../_base_/imagenet_224.py', '../../_base_/recipe.py']
runner_type = 'mmpretrain.FineTuneRunner'

# The images: a folder with train/ and val/, each with one folder of images for each class; or a folder with
# one folder for each class, of which `val_fraction` is held out (of each class the same part, by a seed); or
# with `train_list`, and perhaps `val_list`: files in it with lines `path label`, or CSV with path and class.
data_root = 'data/mine'
val_fraction = 0.2
train_list = None
val_list = None
classes = None  # their names in order; else the names of the folders, or those in the lists

# The teacher: the name of a timm model or of one in mmpretrain's hub, a config file, or None. Its weights are
# a file or the work folder of teacher_folder.py, which tells its name, too.
teacher = None
teacher_checkpoint = None

# The student: the name of a timm model in place of the config's DeiT, such as levit_128s or repvit_m0_9, from
# its published weights or, with `pretrained=False`, from random ones.
student = None
pretrained = True

# The size of the images in pixels: of crops, evaluation, position embeddings and teacher.
image_size = 224

# The weights to start from are `load_from`. All else follows from the data and is said in the log: the
# classes everywhere, top-5 from six classes on; and what is None here.
train_cfg = dict(max_epochs=None)  # 30, or as many as 500 steps take
train_dataloader = dict(
    _delete_=True,
    batch_size=None,  # at most 64 over all processes, at least ten batches an epoch
    num_workers=None,  # a process for each core, at most 4
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageFolder', pipeline=_base_.train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=64,
    num_workers=None,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageFolder', pipeline=_base_.test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
# DeiT's rule, 5e-4 for each 512 images, gives 6.25e-5 for 64; from random weights 5e-4; for smaller batches
# by the square root. The rate, the epochs and the batch are this package's choice, not tuned.
optim_wrapper = dict(optimizer=dict(lr=None))
param_scheduler = [dict(type='DeiTLR', warmup_epochs=None, warmup_lr=1e-6, min_lr=1e-6)]  # 5 of 30
default_hooks = dict(
    checkpoint=dict(max_keep_ckpts=1),
    global_batch=dict(batch_size=None),
)
