"""The logits of whole DeiT III beside timm's, with the same weights.

    python tests/benchmarks/logits.py
    python tests/benchmarks/logits.py --names huge_patch14_224

The tests compare the same with two layers. Both models are drawn, as nothing is downloaded.
"""

import argparse
import os.path as osp
import sys

import torch

sys.path.insert(0, osp.join(osp.dirname(osp.abspath(__file__)), '..'))
from peers import deit3_of_timm, our_deit3  # noqa: E402

from deit_plugin.models import DeiTIII  # noqa: E402

NAMES = [f'{size}_patch16_{side}' for size in ('small', 'base', 'large') for side in (224, 384)]
NAMES = ['medium_patch16_224', *NAMES, 'huge_patch14_224']


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--names', nargs='+', default=NAMES, choices=NAMES)
    print('| model | deviation of the logits | largest difference |\n|---|---|---|')
    for name in parser.parse_args().names:
        size, _, side = name.split('_')
        theirs = deit3_of_timm(name, depth=DeiTIII.arch_zoo[size]['num_layers'])
        ours = our_deit3(theirs, size, int(side), None)
        torch.manual_seed(0)
        x = torch.randn(1, 3, int(side), int(side))
        with torch.inference_mode():
            expected, given = theirs(x), ours(x)
        print(f'| {name} | {expected.std():.2f} | {(given - expected).abs().max():.1e} |')


if __name__ == '__main__':
    main()
