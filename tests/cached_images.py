"""Images in files, and a config that trains on them."""

import json

from PIL import Image
from sklearn.datasets import load_sample_image

SIDE = 64


def photo(width, height, mode='RGB', name='china.jpg'):
    image = Image.fromarray(load_sample_image(name))
    return image.resize((width, height), Image.BICUBIC).convert(mode)


def write_images(folder):
    """Of two classes; each is another case."""
    images = {
        'a/wide.jpg': photo(150, 100),
        'a/tall.jpg': photo(90, 131, name='flower.jpg'),
        'a/grey.jpg': photo(121, 80, 'L'),
        'a/small.jpg': photo(70, 40),
        'b/exact.jpg': photo(64, 64),
        'b/wide.png': photo(143, 77),
        'b/clear.png': photo(80, 75, 'RGBA'),
        'b/palette.png': photo(99, 101, 'P'),
        'b/panorama.jpg': photo(400, 65),
    }
    for name, image in images.items():
        path = folder / 'train' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def write_config(path, data, cached=None, **loader):
    steps = [dict(type='LoadRandomResizedCrop', scale=32), dict(type='PackInputs')]
    if cached is not None:
        steps.insert(0, dict(type='LoadCached', path=str(cached)))
    dataset = dict(type='ImageFolder', data_root=str(data), data_prefix='train', pipeline=steps)
    loader = dict(dict(batch_size=3, num_workers=0, dataset=dataset), **loader)
    path.write_text(f'train_dataloader = {json.dumps(loader)}\n')
    return str(path)
