"""How many operations an iteration of the recipe launches, and how often it waits for the device.

    python tests/benchmarks/launches.py
    python tests/benchmarks/launches.py --config deit_base_distilled

Counted without a GPU, on PyTorch's `meta` device: its tensors have shapes and no values, so images, batch and
layers have their real size, and what is computed on the CPU is told from what is launched. Each operation on
the device that is no view is a launch, or a copy. A value that is read (`item`) makes the host wait for the
device, and so does a copy from the CPU that is not marked `non_blocking`: `torch.tensor(..., device=...)`,
`.to(device)`, or an index on the CPU.

Other than on a GPU, PyTorch takes attention apart on `meta` and has no fused AdamW: attention is called as
one operation here, and the optimizer is counted on the CPU.
"""

import argparse
from collections import Counter

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from step import CONFIGS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deit_plugin.draws import seed_cpu

COPIES = ('_to_copy', 'copy_', 'clone')
EMPTY = ('detach', '_unsafe_view', 'empty', 'empty_like', 'new_empty', 'empty_strided', 'new_empty_strided')


class Launches(TorchDispatchMode):
    """Counts, by kind, of what has to do with a device."""

    def __init__(self, device):
        super().__init__()
        self.device, self.counts = torch.device(device).type, Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        read = name in ('_local_scalar_dense', 'equal')
        # A tensor of the meta device has no value to read.
        result = 1 if read and self._here(args) else function(*args, **kwargs)
        if self._here((args, kwargs, result)):
            self._count(function, name, read, args, kwargs)
        return result

    def _count(self, function, name, read, args, kwargs):
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        # Numbers, of no dimension, are arguments of a launch.
        if self.device != 'cpu' and any(value.device.type == 'cpu' and value.ndim for value in given):
            self.counts['blocking'] += not _non_blocking(function, args, kwargs)
        views = any(r.alias_info and not r.alias_info.is_write for r in function._schema.returns)
        if read or name == 'nonzero':
            self.counts['reads'] += 1
        elif name in COPIES:
            self.counts['copies'] += 1
        elif not views and name not in EMPTY:
            self.counts['launches'] += 1

    def _here(self, values):
        return any(isinstance(v, torch.Tensor) and v.device.type == self.device for v in tree_leaves(values))


def _non_blocking(function, args, kwargs):
    given = dict(zip([argument.name for argument in function._schema.arguments], args), **kwargs)
    return given.get('non_blocking', False)


class Calls(TorchFunctionMode):
    """What the dispatch mode does not see: attention as one operation, and values of Python's on a device."""

    def __init__(self, counts):
        super().__init__()
        self.counts = counts

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        result = function(*args, **(kwargs or {}))
        if function in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            given = args[function is torch.Tensor.new_tensor :]
            self.counts['blocking'] += result.is_meta and not isinstance(given[0], torch.Tensor)
        return result


def read_config(name):
    """The recipe in float32, with a small teacher."""
    cfg = Config.fromfile(f'{CONFIGS}/{name}.py')
    cfg.model.teacher = dict(type='TimmClassifier', model_name='resnet10t', num_classes=1000)
    cfg.model.data_preprocessor = cfg.data_preprocessor
    for key in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(key)
    cfg.optim_wrapper.type = 'OptimWrapper'
    return cfg


def build(cfg, device):
    model = MODELS.build(cfg.model).train()
    model.teacher.build()  # otherwise at its first batch
    model.teacher._to(torch.device(device))
    return model.to(device)


def counted(function, *args, device='meta', **kwargs):
    """The result, and what it launched."""
    mode = Launches(device)
    with mode, Calls(mode.counts):
        result = function(*args, **kwargs)
    return result, mode.counts


def count_parts(name, batch_size):
    """The counts of each part of an iteration, and their sum, from a batch as the loader gives it."""
    cfg, parts = read_config(name), {}
    model = build(cfg, 'meta')
    preprocessor = model.data_preprocessor
    images = torch.zeros(batch_size, 3, 224, 224, dtype=torch.uint8)
    batch = dict(inputs=images, labels=torch.arange(batch_size) % 1000)
    batch['inputs'], parts['RandAugment'] = counted(preprocessor._augment, images)
    preprocessor._operations = None
    part = 'labels, normalising, erasing, mixing'
    data, parts[part] = counted(preprocessor, batch, training=True)
    part = 'student and teacher, losses'
    losses, parts[part] = counted(lambda: model.parse_losses(model(**data, mode='loss')))
    _, parts['backward pass'] = counted(losses[0].backward)

    model = build(cfg, 'cpu')
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    wrapper.step()  # the first one makes the moments
    _, parts['optimizer'] = counted(wrapper.step, device='cpu')
    return {**parts, 'in all': sum(parts.values(), Counter())}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--config', default='deit_tiny_distilled', help='its teacher is a small one here')
    parser.add_argument('--batch-size', type=int, default=256)
    args = parser.parse_args()
    parts = count_parts(args.config, args.batch_size)
    print('| part | launches | copies | reads that wait | copies that wait |')
    print('|---|---|---|---|---|')
    kinds = 'launches', 'copies', 'reads', 'blocking'
    for name, counts in parts.items():
        print(f'| {name} | {" | ".join(str(counts[kind]) for kind in kinds)} |')


if __name__ == '__main__':
    seed_cpu('launches')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
