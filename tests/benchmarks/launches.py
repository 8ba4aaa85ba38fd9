"""How many operations an iteration of the recipe launches, and how often it waits for a value.

    python tests/benchmarks/launches.py

Counted by a dispatch mode, so without a GPU: each operation that is no view is a launch, or a copy. The
numbers depend on the batch and the depth, not on the size of the images or the width, which are small here. A
value that is read (`item`) makes the host wait for the device.
"""

import argparse
from collections import Counter

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from step import CONFIGS
from torch.utils._python_dispatch import TorchDispatchMode

from deit_plugin.datasets.seeded import seed_cpu

COPIES = ('_to_copy', 'copy_', 'clone')


class Launches(TorchDispatchMode):
    """Counts, by kind."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        views = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        if name in ('_local_scalar_dense', 'equal', 'nonzero'):
            self.counts['reads'] += 1
        elif name in COPIES:
            self.counts['copies'] += 1
        elif not views and name not in ('detach', 'empty', 'empty_like', 'new_empty', 'empty_strided'):
            self.counts['launches'] += 1
        return function(*args, **(kwargs or {}))


def build(batch_size):
    """The recipe's model and optimizer with narrow layers, and a batch as the loader gives it."""
    DefaultScope.get_instance('launches', scope_name='mmpretrain')
    cfg = Config.fromfile(f'{CONFIGS}/deit_tiny_distilled.py')
    narrow = dict(embed_dims=48, num_layers=12, num_heads=3, feedforward_channels=96)
    cfg.model.backbone.update(arch=narrow, img_size=32, patch_size=16)
    cfg.model.head.in_channels = 48
    cfg.model.teacher = dict(type='TimmClassifier', model_name='resnet10t', num_classes=1000)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key)
    cfg.optim_wrapper.type = 'OptimWrapper'
    model = MODELS.build(cfg.model).train()
    images = torch.randint(0, 256, (batch_size, 3, 32, 32), dtype=torch.uint8)
    batch = dict(inputs=images, labels=torch.arange(batch_size) % 1000)
    return model, build_optim_wrapper(model, cfg.optim_wrapper), batch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--batch-size', type=int, default=256)
    model, wrapper, batch = build(parser.parse_args().batch_size)
    preprocessor, parts = model.data_preprocessor, {}

    def count(name, function):
        with Launches() as mode:
            result = function()
        parts[name] = mode.counts
        return result

    model.teacher(torch.zeros(1, 3, 32, 32))  # it is built at its first batch
    augmented = count('RandAugment', lambda: preprocessor._augment(batch['inputs']))
    augment, preprocessor._rand_augment = preprocessor._rand_augment, None
    data = count(
        'labels, normalising, erasing, mixing',
        lambda: preprocessor(dict(batch, inputs=augmented), training=True),
    )
    preprocessor._rand_augment = augment
    loss = count('student and teacher, losses', lambda: model.parse_losses(model(**data, mode='loss'))[0])
    count('backward pass', loss.backward)
    wrapper.step()  # the first one makes the moments
    count('optimizer', wrapper.step)
    parts['in all'] = sum(parts.values(), Counter())
    print('| part | launches | copies | reads that wait |')
    print('|---|---|---|---|')
    for name, counts in parts.items():
        print(f'| {name} | {counts["launches"]} | {counts["copies"]} | {counts["reads"]} |')


if __name__ == '__main__':
    seed_cpu('launches')
    main()
