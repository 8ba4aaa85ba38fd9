"""An update of the moving average of DeiT-S: ours beside mmengine's, in turns.

    python tests/benchmarks/ema.py
    python tests/benchmarks/ema.py --device cuda

Operations are counted on the meta device: on a GPU each is one launch or, over many tensors, a few.
"""

import argparse
import statistics

import torch
from launches import Launches
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from step import CONFIGS, clock

from deit_plugin.engine import ForeachEMA

KINDS = ExponentialMovingAverage, ForeachEMA


def operations(average, model):
    """Of the second update."""
    average.update_parameters(model)
    with Launches('meta') as mode:
        average.update_parameters(model)
    return mode.counts['launches'] + mode.counts['copies']


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--rounds', type=int, default=31)
    args = parser.parse_args()
    cfg = Config.fromfile(f'{CONFIGS}/deit_small_distilled.py')
    cfg.model.pop('teacher')
    cfg.model.head.loss.mode = 'none'
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor)).to(args.device)
    averages = [average(model) for average in KINDS]
    for average in averages:
        average.update_parameters(model)  # the first one copies
    times = [[], []]
    for i in range(args.rounds):
        for k in (0, 1) if i % 2 else (1, 0):
            times[k].append(clock(averages[k].update_parameters, model))
    print(f'torch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads\n')
    print('| | ms | operations |\n|---|---|---|')
    model.to('meta')
    for name, taken, average in zip(('mmengine', '`ForeachEMA`'), times, KINDS):
        print(f'| {name} | {1e3 * statistics.median(taken):.2f} | {operations(average(model), model)} |')
    print(f'\nratio {statistics.median(b / a for a, b in zip(*times)):.2f}')


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
