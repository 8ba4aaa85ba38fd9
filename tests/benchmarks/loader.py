"""Images per second from the files to a batch in the main process, beside timm's loader and mmpretrain's.

    python tests/benchmarks/loader.py

Through a DataLoader each: worker, transport, main process. The loaders take turns on the same JPEGs of
500 x 375; the figures are medians. Of timm it is `create_loader` with its `fast_collate`, as its training
has it; mmpretrain's has Pillow, as in the reference. RandAugment happens in a worker there, and on the
device here. Normalising and erasing are left out for all. The CPU time is that of workers and main process.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from photos import machine, write_images
from timm.data import create_dataset, create_loader

from deit_plugin.apis.cache import cache
from deit_plugin.datasets.seeded import place_draws

CLASSES = 2
# The recipe with mmpretrain's transforms, Pillow as in the reference.
MMPRETRAIN = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic'),
    ),
    dict(type='PackInputs'),
]


def timms(folder, args, **kwargs):
    """timm's loader, without what its prefetcher does on the device."""
    loader = create_loader(
        create_dataset('', f'{folder}/train'),
        (3, 224, 224),
        args.batch_size,
        is_training=True,
        interpolation='bicubic',
        color_jitter=0,
        num_workers=args.workers,
        device=torch.device('cpu'),
        **kwargs,
    ).loader
    transform = loader.dataset.transform

    def of_drawn(image):
        while True:
            try:
                return transform(image)
            except ValueError:  # now and then it posterizes to 0 bits, which Pillow 13 refuses
                pass

    loader.dataset.transform = of_drawn
    return loader


def dataset_of(folder, pipeline, kind='ImageNet1k'):
    classes = [str(i) for i in range(CLASSES)]
    images = dict(data_root=folder, split='', data_prefix='train', metainfo=dict(classes=classes))
    return dict(type=kind, pipeline=pipeline, **images)


def mms(folder, args, pipeline, collate, kind='ImageNet1k'):
    """mmengine's loader, with the draws of :class:`SeedHook` for ours."""
    loader = Runner.build_dataloader(
        dict(
            batch_size=args.batch_size,
            num_workers=args.workers,
            persistent_workers=True,
            drop_last=True,
            collate_fn=dict(type=collate),
            sampler=dict(type='DefaultSampler', shuffle=True),
            dataset=dataset_of(folder, pipeline, kind),
        ),
        seed=0,
    )
    if kind == 'ImageNet1k':
        place_draws(loader, 0)
    return loader


def cached(folder, side=256):
    """The transform that reads the images from a cache, which is written here."""
    config, written = f'{folder}/config.py', f'{folder}/cached-{side}'
    cfg = dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset_of(folder, [])))
    Config(cfg).dump(config)
    with contextlib.redirect_stdout(None):
        cache(config, written, side)
    return dict(type='LoadCached', path=written)


def loaders(folder, args):
    pack, from_cache = dict(type='PackInputs'), cached(folder)

    def ours(*first, **kwargs):
        load = dict(type='LoadRandomResizedCrop', scale=224, **kwargs)
        return mms(folder, args, [*first, load, pack], 'labels_collate')

    recipe = dict(auto_augment='rand-m9-mstd0.5-inc1')
    return {
        'timm, all of it': timms(folder, args, **recipe),
        'timm, without RandAugment': timms(folder, args),
        'mmpretrain, all of it': mms(folder, args, MMPRETRAIN, 'pseudo_collate', 'ImageNet'),
        'ours': ours(),
        'ours, the device resizes': ours(on_device='resize'),
        'ours, the device decodes': ours(on_device='decode'),
        'ours, cached at 256': ours(from_cache),
        'ours, cached, the device resizes': ours(from_cache, on_device='resize'),
    }


def cpu_seconds():
    """Of this process and its workers."""
    ticks = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        with open(f'/proc/{process}/stat') as file:
            ticks += sum(map(int, file.read().rpartition(')')[2].split()[11:13]))  # user's and system's
    return ticks / os.sysconf('SC_CLK_TCK')


def epoch(loader):
    """Seconds and CPU seconds of an image. The first batch is not timed: the workers are then at work."""
    batches, images = iter(loader), 0
    next(batches)
    start, spent = time.perf_counter(), cpu_seconds()
    for batch in batches:
        images += (
            len(batch['labels'] if 'labels' in batch else batch['inputs'])
            if isinstance(batch, dict)
            else len(batch[1])
        )
    return (time.perf_counter() - start) / images, (cpu_seconds() - spent) / images


def race(loaders, rounds):
    times = {name: [] for name in loaders}
    for i in range(rounds):
        turns = list(loaders.items())
        for name, loader in turns[::-1] if i % 2 else turns:
            times[name].append(epoch(loader))
    print('\n| loader | images/s | ratio | CPU us an image | ratio |')
    print('|---|---|---|---|---|')
    first = None
    for name, pairs in times.items():
        wall, cpu = (statistics.median(column) for column in zip(*pairs))
        first = first or (wall, cpu)
        print(f'| {name} | {1 / wall:.0f} | {first[0] / wall:.2f} | {1e6 * cpu:.0f} | {first[1] / cpu:.2f} |')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--images', type=int, default=1024)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder, DefaultScope.overwrite_default_scope('mmpretrain'):
        write_images(folder, args.images)
        race(loaders(folder, args), args.rounds)


if __name__ == '__main__':
    main()
