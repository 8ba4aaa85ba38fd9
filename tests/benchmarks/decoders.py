"""The decoders and the resizers of a JPEG, one by one, beside Pillow's result; and evaluation's pipelines.

    python tests/benchmarks/decoders.py

One core, JPEGs of 500 x 375; they take turns, and the figures are medians.
"""

import argparse
import random
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import cv2
import numpy as np
import torch
import torchvision
from mmcv.transforms import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from photos import HEIGHT, WIDTH, crops, encode, machine
from PIL import Image

from deit_plugin.datasets import LoadRandomResizedCrop, jpeg


def available():
    missing = jpeg.simplejpeg is None
    return [n for n in jpeg.DECODERS if n != 'simplejpeg' or not missing]


def seconds(function, items):
    start = time.perf_counter()
    for item in items:
        function(item)
    return time.perf_counter() - start


def race(functions, items, rounds):
    """The median of the seconds that each takes for an item."""
    times = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, function in functions.items():
            times[name].append(seconds(function, items) / len(items))
    # The first round warms up.
    return {name: statistics.median(t[1:]) for name, t in times.items()}


def difference(images, others):
    """How many values differ, in percent, and by how much at most."""
    distance = np.abs(np.int16(images) - np.int16(others))
    return f'{100 * (distance > 0).mean():11.4f} {distance.max():9d}'


def print_table(title, rows):
    print(f'\n{title}')
    for row in rows:
        print(row)


def decode_torchvision(data, header):
    image = torchvision.io.decode_jpeg(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), torchvision.io.ImageReadMode.RGB
    )
    return image.permute(1, 2, 0).numpy()


def decoders():
    """For whole images; and for a part of them."""

    def with_header(decode, *args):
        return lambda data: decode(data, jpeg.read_header(data), *args)

    whole = {n: with_header(jpeg.DECODERS[n]) for n in available()}
    if hasattr(torchvision.io, 'decode_jpeg'):
        whole['torchvision'] = with_header(decode_torchvision)
    parts = {}
    if 'simplejpeg' in whole:
        parts['simplejpeg, the upper 3/4'] = with_header(jpeg.decode_simplejpeg, HEIGHT * 3 // 4)
    return whole, parts


def resizers():
    size = 224, 224

    def pillow(image):
        return np.asarray(Image.fromarray(image).resize(size, Image.BICUBIC))

    def two_passes(image):
        wide = Image.fromarray(image).resize((224, len(image)), Image.BICUBIC)
        return np.asarray(wide.resize(size, Image.BICUBIC))

    return {
        'Pillow, horizontal pass first': two_passes,
        'Pillow': pillow,
        'torch': lambda image: jpeg.resize(image, size).permute(1, 2, 0),
        'OpenCV cubic (no antialiasing)': lambda image: cv2.resize(
            image, size, interpolation=cv2.INTER_CUBIC
        ),
        'OpenCV area': lambda image: cv2.resize(image, size, interpolation=cv2.INTER_AREA),
    }


def evaluations():
    """From a file to a packed image."""
    pillow = dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic')
    load = dict(type='LoadImage')
    steps = {
        "mmpretrain's": [dict(type='LoadImageFromFile', imdecode_backend='pillow'), pillow],
        'LoadImage': [load, pillow],
        'LoadImage, TorchResizeEdge': [load, dict(type='TorchResizeEdge', scale=256)],
    }

    rest = [dict(type='CenterCrop', crop_size=224), dict(type='PackInputs')]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return {
            name: Compose([TRANSFORMS.build(step) for step in (*first, *rest)])
            for name, first in steps.items()
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--images', type=int, default=48)
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    print(machine())
    images = list(crops(args.images))
    files = [encode(image) for image in images]
    size = sum(map(len, files)) / len(files) / 1e3
    print(f'{len(files)} JPEGs of {WIDTH} x {HEIGHT}, {size:.0f} kB each, median of {args.rounds} rounds')

    functions, parts = decoders()
    times = race({**functions, **parts}, files, args.rounds)
    pillow = [functions['pillow'](data) for data in files]
    print_table(
        f'{"decoder, of a whole image":34} {"ms":>9} {"% differ":>11} {"at most":>9}',
        [
            f'{name:34} {times[name] * 1e3:9.3f} ' + difference([function(data) for data in files], pillow)
            for name, function in functions.items()
        ]
        + [f'{name:34} {times[name] * 1e3:9.3f}' for name in parts],
    )

    draw = LoadRandomResizedCrop(decoder='pillow').crop_box
    parts = []
    for image in images:
        top, left, height, width = draw(HEIGHT, WIDTH)
        parts.append(np.array(image)[top : top + height, left : left + width].copy())
    functions = resizers()
    times = race(functions, parts, args.rounds)
    expected = [functions['Pillow, horizontal pass first'](p) for p in parts]
    print_table(
        f'{"resizer, of the crops to 224":34} {"ms":>9} {"% differ":>11} {"at most":>9}',
        (
            f'{name:34} {times[name] * 1e3:9.3f} '
            + difference(np.stack([function(p) for p in parts]), expected)
            for name, function in functions.items()
        ),
    )

    def of_file(pipeline):
        return lambda path: pipeline(dict(img_path=path))['inputs']

    functions = {name: of_file(pipeline) for name, pipeline in evaluations().items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = [f'{folder}/{i}.jpg' for i in range(len(files))]
        for path, data in zip(paths, files):
            Path(path).write_bytes(data)
        times = race(functions, paths, args.rounds)
        given = {name: np.stack([function(path) for path in paths]) for name, function in functions.items()}
    print_table(
        f'{"evaluation, from a file":34} {"ms":>9} {"% differ":>11} {"at most":>9}',
        (
            f'{name:34} {times[name] * 1e3:9.3f} ' + difference(images, given["mmpretrain's"])
            for name, images in given.items()
        ),
    )


if __name__ == '__main__':
    main()
