"""Parameters and FLOPs of the published variants, as mmengine counts them.

    python tests/benchmarks/complexity.py
    python tests/benchmarks/complexity.py --deit3
    python tests/benchmarks/complexity.py --students

Published are those of mmpretrain's `configs/deit/metafile.yml` and `configs/deit3/metafile.yml` (of the
backbone at the size of evaluation, whatever a config trains at), or of the students' own READMEs. mmengine
counts a multiplication and an addition as one, and does not see PyTorch's
fused attention, so the plain one is counted.
"""

import argparse
import math
import os.path as osp

import timm
from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config, ConfigDict
from mmpretrain.registry import MODELS

from deit_plugin.models import DeiTIII

CONFIGS = osp.join(osp.dirname(osp.abspath(__file__)), '..', '..', 'configs')
PUBLISHED = dict(  # parameters, FLOPs
    deit_tiny=(5717416, 1258219200),
    deit_small=(22050664, 4607954304),
    deit_base=(86567656, 17581972224),
    deit_tiny_distilled=(5910800, 1265371776),
    deit_small_distilled=(22436432, 4632876288),
    deit_base_distilled=(87338192, 17674283520),
    deit_base_384=(86859496, 55538974464),
    deit_base_distilled_384=(87630032, 55645294080),
)


DEIT3 = {  # size, image
    ('small', 224): (22059496, 4607954304),
    ('small', 384): (22205416, 15517663104),
    ('medium', 224): (38849512, 8003064320),
    ('base', 224): (86585320, 17581972224),
    ('base', 384): (86877160, 55538974464),
    ('large', 224): (304374760, 61603111936),
    ('large', 384): (304763880, 191210034176),
    ('huge', 224): (632126440, 167400741120),
}
NOT_PUBLISHED = {('tiny', 224): None, ('base', 192): None, ('large', 192): None, ('huge', 160): None}
# The READMEs of the originals; RepViT's without the distillation head, and its norms folded.
STUDENTS = dict(
    levit_128s=(7.8e6, 305e6),
    levit_128=(9.2e6, 406e6),
    levit_192=(11e6, 658e6),
    levit_256=(19e6, 1120e6),
    levit_384=(39e6, 2353e6),
    efficientformer_l1=None,
    efficientformer_l3=None,
    efficientformer_l7=None,
    efficientformerv2_s0=(3.5e6, 0.40e9),
    efficientformerv2_s1=(6.1e6, 0.65e9),
    efficientformerv2_s2=(12.6e6, 1.25e9),
    efficientformerv2_l=(26.1e6, 2.56e9),
    repvit_m0_9=(5.1e6, 0.8e9),
    repvit_m1_0=(6.8e6, 1.1e9),
    repvit_m1_1=(8.2e6, 1.3e9),
    repvit_m1_5=(14.0e6, 2.3e9),
    repvit_m2_3=(22.9e6, 4.5e9),
    fastvit_t8=None,
    fastvit_t12=None,
    fastvit_s12=None,
    fastvit_sa12=None,
    fastvit_sa24=None,
    fastvit_sa36=None,
    fastvit_ma36=None,
)


def count(name: str) -> tuple:
    """Parameters and FLOPs of one image of a config's model, without a teacher."""
    cfg = Config.fromfile(osp.join(CONFIGS, f'{name}.py'))
    return _count(cfg.model, cfg.test_pipeline[-2].crop_size)


def count_deit3(size: str, side: int) -> tuple:
    """Parameters and FLOPs of one image."""
    backbone = dict(type='DeiTIII', arch=size, img_size=side, patch_cfg=dict(padding=0))
    head = dict(type='DeiTHead', num_classes=1000, in_channels=DeiTIII.arch_zoo[size]['embed_dims'])
    return _count(ConfigDict(type='ImageClassifier', backbone=backbone, head=head), side)


def _count(model: ConfigDict, side: int) -> tuple:
    if 'backbone' in model:
        model.backbone.fused_attn = False
    elif model.pop('teacher', None):
        model.loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    before = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(False)
    try:
        counts = get_model_complexity_info(
            MODELS.build(model).eval(), (3, side, side), show_table=False, show_arch=False
        )
    finally:
        timm.layers.set_fused_attn(before)
    return counts['params'], counts['flops']


def main():
    parser = argparse.ArgumentParser()
    others = parser.add_mutually_exclusive_group()
    others.add_argument('--students', action='store_true')
    others.add_argument('--deit3', action='store_true')
    args = parser.parse_args()
    print('| config | parameters | published | FLOPs | published |\n|---|---|---|---|---|')
    rows = STUDENTS if args.students else DEIT3 | NOT_PUBLISHED if args.deit3 else PUBLISHED
    for name, published in rows.items():
        if args.deit3:
            own, name = count_deit3(*name), 'DeiT III {} {}'.format(*name)
        else:
            own = count(f'students/{name}' if args.students else name)
        (own_params, own_flops), (params, flops) = own, published or (math.nan, math.nan)
        row = (
            f'| {name} | {own_params / 1e6:.2f}M | {params / 1e6:.2f}M | '
            f'{own_flops / 1e9:.2f}G | {flops / 1e9:.2f}G |'
        )
        print(row.replace('nanM', '-').replace('nanG', '-'))


if __name__ == '__main__':
    main()
