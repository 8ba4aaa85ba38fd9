"""Images per second of one core, from the file to a uint8 tensor.

    python tests/benchmarks/loader.py

This package's loader, timm's and mmpretrain's pipelines take turns on the same
JPEGs of 500 x 375, crops of a photograph that scikit-learn ships. Then the
decoders and the resizers one by one, beside Pillow's result.
"""

import argparse
import io
import os.path as osp
import platform
import random
import statistics
import tempfile
import time
import warnings

import cv2
import mmpretrain
import numpy as np
import PIL
import timm
import torch
import torchvision
from mmcv.transforms import Compose
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import create_transform

from deit_plugin.datasets import LoadRandomResizedCrop, jpeg

WIDTH, HEIGHT = 500, 375
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


def crops(number):
    """As many different images of the size, from two photographs."""
    photos = [Image.fromarray(load_sample_image(name)) for name in ('china.jpg', 'flower.jpg')]
    for i in range(number):
        photo = photos[i % 2]
        width = random.randint(WIDTH, photo.height * 4 // 3)
        height = width * 3 // 4
        left = random.randint(0, photo.width - width)
        top = random.randint(0, photo.height - height)
        yield photo.resize((WIDTH, HEIGHT), Image.BICUBIC, (left, top, left + width, top + height))


def encode(image):
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


def timm_pipeline(**kwargs):
    transform = create_transform(224, is_training=True, interpolation='bicubic', **kwargs)

    def load(path):
        with Image.open(path) as image:
            image = image.convert('RGB')
        try:
            return transform(image)
        except ValueError:
            # Now and then timm 1.0 posterizes to 0 bits, which Pillow 13
            # refuses.
            return None

    return load


def mm_pipeline(cfgs):
    pipeline = Compose([TRANSFORMS.build(cfg) for cfg in cfgs])
    return lambda path: pipeline(dict(img_path=path))


def pipelines():
    augmented = dict(auto_augment='rand-m9-mstd0.5-inc1', re_prob=0.25)
    bare = dict(color_jitter=0, use_prefetcher=True)
    train = MMPRETRAIN
    pack = dict(type='PackInputs')
    return {
        'timm, the whole pipeline': timm_pipeline(**augmented),
        'timm, without augmentation': timm_pipeline(**bare),
        'mmpretrain, the whole pipeline': mm_pipeline(train),
        'mmpretrain, without RandAugment': mm_pipeline(
            [cfg for cfg in train if cfg['type'] != 'RandAugment']
        ),
        **{
            f'ours, {name}': mm_pipeline([dict(type='LoadRandomResizedCrop', decoder=name), pack])
            for name in available()
        },
    }


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


def cpu():
    if osp.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            for line in file:
                if line.startswith('model name'):
                    return line.split(':')[1].strip()
    return platform.processor() or platform.machine()


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

    versions = dict(
        timm=timm.__version__,
        mmpretrain=mmpretrain.__version__,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        Pillow=PIL.__version__,
        OpenCV=cv2.__version__,
        simplejpeg=getattr(jpeg.simplejpeg, '__version__', None),
    )
    print(', '.join(f'{name} {version}' for name, version in versions.items()))
    print(f'{cpu()}, {torch.backends.cpu.get_cpu_capability()}, 1 thread')

    images = list(crops(args.images))
    files = [encode(image) for image in images]
    size = sum(map(len, files)) / len(files) / 1e3
    print(f'{len(files)} JPEGs of {WIDTH} x {HEIGHT}, {size:.0f} kB each, median of {args.rounds} rounds')

    with tempfile.TemporaryDirectory() as folder:
        paths = [osp.join(folder, f'{i}.jpg') for i in range(len(files))]
        for path, data in zip(paths, files):
            with open(path, 'wb') as file:
                file.write(data)
        times = race(pipelines(), paths, args.rounds)
    base = times['timm, the whole pipeline']
    print_table(
        f'{"pipeline":34} {"images/s":>9} {"ratio":>6}',
        (f'{name:34} {1 / t:9.0f} {base / t:6.2f}' for name, t in times.items()),
    )

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


if __name__ == '__main__':
    main()
