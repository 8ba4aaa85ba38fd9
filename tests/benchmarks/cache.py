"""Images per second of one core from a cache (`deit-plugin cache`), and how its crops differ.

    python tests/benchmarks/cache.py

JPEGs of 500 x 375, crops of photographs that scikit-learn ships. The ways take turns, and the figures are
medians. Files are in memory after the first round; `cold` ones were removed from it, and the disk decides how
fast they are. A difference is that from the same box of the whole image by Pillow, which takes boxes between
pixels.
"""

import argparse
import glob
import json
import os
import random
import statistics
import tempfile
import time
import warnings

import numpy as np
import torch
from mmcv.transforms import Compose
from mmpretrain.registry import TRANSFORMS
from photos import machine, write_images
from PIL import Image

from deit_plugin.apis.cache import cache
from deit_plugin.datasets import LoadCached, LoadRandomResizedCrop
from deit_plugin.datasets.jpeg import resize

SIZE = (224, 224)


def pipeline(cached=None):
    steps = [dict(type='LoadRandomResizedCrop', scale=SIZE[0]), dict(type='PackInputs')]
    if cached:
        steps.insert(0, dict(type='LoadCached', path=cached))
    return Compose([TRANSFORMS.build(step) for step in steps])


def forget(files):
    """Remove files from the system's memory."""
    for name in files:
        with open(name, 'rb') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds(ways, paths, files, rounds, cold):
    """The median of the seconds that each way takes for an image."""
    times = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, cached in ways.items():
            random.shuffle(paths)
            load = pipeline(cached)
            if cold:
                forget(files[name])
            start = time.perf_counter()
            for path in paths:
                load(dict(img_path=path))
            times[name].append((time.perf_counter() - start) / len(paths))
    return {name: statistics.median(t[1:]) for name, t in times.items()}  # the first round warms up


def differences(ways, paths):
    """Of the crops of each way from the same ones of the whole image: mean, 99th percentile, and percent that
    differ at all."""
    found = {name: [] for name in ways}
    draw = LoadRandomResizedCrop().crop_box
    loads = {name: LoadCached(cached) for name, cached in ways.items() if cached}
    for path in paths:
        whole = Image.open(path).convert('RGB')
        for name in ways:
            image = loads[name].transform(dict(img_path=path))['img'] if name in loads else None
            image = np.asarray(whole) if image is None else image[..., ::-1]
            height, width = image.shape[:2]
            top, left, h, w = draw(height, width)
            ours = resize(image[top : top + h, left : left + w].copy(), SIZE).permute(1, 2, 0).numpy()
            x, y = whole.width / width, whole.height / height  # pixels of the file in one of the cache
            box = (left * x, top * y, (left + w) * x, (top + h) * y)
            exact = np.asarray(whole.resize(SIZE, Image.BICUBIC, box=box))
            found[name].append(np.abs(ours.astype(np.int16) - exact))
    return {
        name: (np.mean(d), np.percentile(d, 99), 100 * np.mean(np.stack(d) > 0)) for name, d in found.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--images', type=int, default=256)
    parser.add_argument('--sides', type=int, nargs='+', default=[256, 320, 375])
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        write_images(folder, args.images)
        config = os.path.join(folder, 'config.py')
        dataset = dict(type='ImageFolder', data_root=folder, data_prefix='train', pipeline=[])
        with open(config, 'w') as file:
            file.write(f'train_dataloader = dict(dataset={json.dumps(dataset)})')
        ways, files, sizes = {'files': None}, {}, {}
        paths = files['files'] = sorted(glob.glob(f'{folder}/train/*/*.jpg'))
        sizes['files'] = sum(map(os.path.getsize, paths))
        for side in args.sides:
            name, ways_folder = f'cache of {side}', os.path.join(folder, str(side))
            sizes[name] = cache(config, ways_folder, side, workers=0)['bytes']
            ways[name], files[name] = ways_folder, glob.glob(f'{ways_folder}/*.npy')
        warm = seconds(ways, paths, files, args.rounds, False)
        cold = seconds(ways, paths, files, args.rounds, True)
        differ = differences(ways, paths)
    print(
        f'{"":14}{"images/s":>10}{"ratio":>7}{"cold":>10}{"kB an image":>13}'
        f'{"mean diff.":>12}{"99 %":>6}{"% differ":>10}'
    )
    for name in ways:
        mean, most, share = differ[name]
        print(
            f'{name:14}{1 / warm[name]:10.0f}{warm["files"] / warm[name]:7.2f}{1 / cold[name]:10.0f}'
            f'{sizes[name] / len(paths) / 1e3:13.0f}{mean:12.2f}{most:6.0f}{share:10.1f}'
        )


if __name__ == '__main__':
    main()
