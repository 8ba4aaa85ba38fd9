"""Parameters and FLOPs of the published variants, as mmengine counts them.

    python tests/benchmarks/complexity.py

Published are those of mmpretrain's `configs/deit/metafile.yml`. mmengine
counts a multiplication and an addition as one, and does not see PyTorch's
fused attention, so the plain one is counted.
"""

import os.path as osp

from mmengine.analysis import get_model_complexity_info
from mmengine.config import Config
from mmpretrain.registry import MODELS

import deit_plugin  # noqa: F401

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


def count(name: str) -> tuple:
    """Parameters and FLOPs of one image."""
    cfg = Config.fromfile(osp.join(CONFIGS, f'{name}.py')).model
    cfg.backbone.fused_attn = False
    side = cfg.backbone.get('img_size', 224)
    counts = get_model_complexity_info(
        MODELS.build(cfg).eval(), (3, side, side), show_table=False, show_arch=False
    )
    return counts['params'], counts['flops']


def main():
    print('| config | parameters | published | FLOPs | published |\n|---|---|---|---|---|')
    for name, (params, flops) in PUBLISHED.items():
        own_params, own_flops = count(name)
        print(
            f'| {name} | {own_params / 1e6:.2f}M | {params / 1e6:.2f}M | '
            f'{own_flops / 1e9:.2f}G | {flops / 1e9:.2f}G |'
        )


if __name__ == '__main__':
    main()
