# Masked-image pre-training (SimMIM, arXiv 2111.09886) of DeiT-B at 224, 800 epochs, without labels.
# No figure is published for DeiT. The 83.8 % of microsoft/SimMIM after fine-tuning are of another ViT-B:
# shared relative positions, layer scale and rescaled initial weights, none of which DeiT has.
# On 8 GPUs x 256, float16; time and memory are not measured:
#   mim train mmpretrain configs/deit_base_simmim.py --launcher pytorch --gpus 8
# On 1 GPU gradients are accumulated to the same batch of 2048:
#   mim train mmpretrain configs/deit_base_simmim.py
#
# To fine-tune, a classifier with the plain `DeiT` as its backbone takes
#   init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')
#
# Source of the values: [S] microsoft/SimMIM at 0e71746,
# configs/vit_base__800ep/simmim_pretrain__vit_base__img224__800ep.yaml, and
# its config.py for what that leaves at the default; [M] mmpretrain's
# simmim_swin-base-w6_16xb128-amp-coslr-800e_in1k-192px.py. The paper's text
# gives ViT-B another rate, warm-up and schedule (issue 16 there); the released
# weights come with these.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs256_simmim_192.py',
    '_base_/runtime.py',
]

model = dict(
    type='SimMIM',
    backbone=dict(type='MaskedDeiT', arch='base', img_size=224, patch_size=16, drop_path_rate=0.1),  # [S]
    neck=dict(type='SimMIMLinearDecoder', in_channels=768, encoder_stride=16),
    head=dict(
        type='SimMIMHead',
        patch_size=16,
        loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # [S] data/data_simmim.py. It resizes with Pillow, which smooths where
    # OpenCV's bilinear, mmpretrain's default, skips pixels.
    dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.67, 1.0), backend='pillow'),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='SimMIMMaskGenerator',
        input_size=224,
        mask_patch_size=32,  # [S]
        model_patch_size=16,
        mask_ratio=0.6,
    ),  # [S]
    dict(type='PackInputs'),
]
train_dataloader = dict(
    drop_last=True,  # [S]
    collate_fn=dict(_delete_=True, type='default_collate'),  # inherited, it would have a `_scope_`
    dataset=dict(type='ImageNet1k', pipeline=train_pipeline),
)

optim_wrapper = dict(
    type='AmpOptimWrapper',  # [M]; [S] has apex O1
    constructor='GroupedOptimWrapperConstructor',
    optimizer=dict(
        type='AdamW',
        lr=1e-4 * 2048 / 512,  # [S]: 1e-4 for each 512 images of the batch
        betas=(0.9, 0.999),  # [S]
        weight_decay=0.05,
    ),  # [S]
    clip_grad=dict(max_norm=5.0),  # [S] [M]
    # [S]: its ViT spares these, but not the mask token.
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.dist_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=5e-7 / 1e-4,  # [S]
        by_epoch=True,
        end=10,  # [S]
        convert_to_iter_based=True,
    ),
    # mmengine counts milestones from `begin`: the begin=10 of [M] would move
    # the step to epoch 710.
    dict(type='MultiStepLR', milestones=[700], gamma=0.1, by_epoch=True),  # [S]
]
train_cfg = dict(by_epoch=True, max_epochs=800)  # [S]

default_hooks = dict(global_batch=dict(type='GlobalBatchHook', batch_size=2048))
