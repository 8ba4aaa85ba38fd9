"""What is kept for the backward pass, beside timm's TokenDistillationTask, and what batch fits on a card.

    python tests/benchmarks/memory.py
    python tests/benchmarks/memory.py --sizes tiny small --rounds 0

Counted on the CPU at batches of 1 and 2, and taken as linear in the batch: the storages that a training
forward pass keeps for the backward pass, each once, without the parameters. With `with_cp` one layer is
computed anew at a time, which counts as kept too. The time is this process's CPU time of a forward and
backward pass in float32, of that without `with_cp`.

What fits is an estimate: weights, gradients and the two moments of AdamW (16 bytes a parameter), what is
kept, and as much as a layer keeps, for the gradients under way, in 85 % of the card. A live teacher is
not in it. bfloat16 is the CPU's autocast; float16 takes the same room.
"""

import argparse
import functools
import statistics
import time

import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from step import (
    FLOPS,
    autocast,
    batch_of,
    loss_of_ours,
    loss_of_timms,
    model_of_ours,
    side_of,
    task_of_timms,
)

CARDS = 16, 24, 40, 80  # GiB
GIB = 2**30


def kept(function, parameters):
    """Bytes that a function keeps for the backward pass of what it returns, without parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function()
    del result  # until here its graph holds them, so that no address comes twice
    return sum(storage.nbytes() for storage in storages.values())


def line(loss, model, args, side):
    """Bytes kept for no image, such as weights in half precision, and for each image."""
    counts = []
    for args.batch_size in (1, 2):
        inputs = batch_of(args, side)
        counts.append(kept(functools.partial(loss, model, args, *inputs), model.parameters()))
    return 2 * counts[0] - counts[1], counts[1] - counts[0]


def layer_anew(model, args, images, target):
    """What `with_cp` computes anew at a time: a layer of our model."""
    tokens, side = model.backbone.num_extra_tokens, images.shape[-1]
    length = (side // model.backbone.patch_size[0]) ** 2 + tokens
    x = torch.randn(len(images), length, model.backbone.embed_dims, requires_grad=True)
    with autocast(args):
        return model.backbone.layers[0](x)


def lines(size, args, ours=None, timms=None, side=None):
    """By name, the bytes of :func:`line`: ours, with ``with_cp``, timm's, and those of a layer alone.

    Args:
        size (str): Of `step.py`.
        args (argparse.Namespace): As there.
        ours (dict, optional): Further arguments of our backbone.
        timms (dict, optional): And of timm's student.
        side (int, optional): Of the images. Defaults to that of the size.
    """
    ours, side, found = ours or {}, side or side_of(size), {}
    model, _ = model_of_ours(size, args, **ours)
    found['ours'] = line(loss_of_ours, model, args, side)
    model.backbone.with_cp = True
    whole = line(loss_of_ours, model, args, side)
    layer = line(layer_anew, model, args, side)
    found['with_cp'] = whole[0] + layer[0], whole[1] + layer[1]
    task = task_of_timms(size, args, **(timms or {}))
    found['timm'] = line(loss_of_timms, task, args, side)
    return found, layer


def time_ratio(size, args, rounds):
    """The CPU time of a forward and backward pass with ``with_cp``, of that without."""
    model, _ = model_of_ours(size, args)
    args.batch_size = 2
    inputs, ratios = batch_of(args, side_of(size)), []

    def step(with_cp):
        model.backbone.with_cp, start = with_cp, time.process_time()
        loss_of_ours(model, args, *inputs).backward()
        return time.process_time() - start

    step(False)
    for _ in range(rounds):
        without = step(False)
        ratios.append(step(True) / without)
    return statistics.median(ratios)


def fitting(card, weights, per_image):
    """The largest batch that a card of so many GiB holds; see above."""
    return max(0, int((0.85 * card * GIB - weights) // per_image))


def print_size(size, args, rounds):
    model, _ = model_of_ours(size, args)
    weights = 16 * sum(p.numel() for p in model.parameters())
    for args.precision in ('float32', 'bfloat16'):
        found, layer = lines(size, args)
        timed = f'{time_ratio(size, args, rounds):.2f}' if rounds and args.precision == 'float32' else '-'
        for name, (constant, per_image) in found.items():
            cells = [
                *(f'{size}, {args.precision}', name, f'{per_image / 2**20:.1f}'),
                *(f'{per_image / found["timm"][1]:.3f}', timed if name == 'with_cp' else '-'),
                *(str(fitting(card, weights + constant, per_image + layer[1])) for card in CARDS),
            ]
            print(f'| {" | ".join(cells)} |', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--sizes', nargs='+', default=list(FLOPS))
    parser.add_argument('--rounds', type=int, default=3, help='to time `with_cp`, 0 for none')
    args = parser.parse_args()
    rounds, sizes = args.rounds, args.sizes
    MMLogger.get_instance('memory').setLevel('ERROR')
    args = argparse.Namespace(device='cpu', precision='float32', teacher='resnet10t', compile=False)
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads\n')
    columns = ['student', '', 'MiB an image', 'of timm', 'time', *(f'{card} GiB' for card in CARDS)]
    print(f'| {" | ".join(columns)} |\n|{"---|" * len(columns)}')
    for size in sizes:
        print_size(size, args, rounds)


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
