"""What the device makes of crops at their own sizes, beside Pillow's resize."""

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from PIL import Image
from sklearn.datasets import load_sample_image

from deit_plugin.datasets import ImageFolder, LoadRandomResizedCrop
from deit_plugin.datasets.pieces import Pieces
from deit_plugin.datasets.seeded import place_draws
from deit_plugin.models.pieces import images_of

CPU = torch.device('cpu')
PHOTO = load_sample_image('china.jpg')[:300, :400]


def by_pillow(crop, size):
    """In float32, not rounded."""
    channels = [Image.fromarray(np.float32(crop[..., c])).resize(size[::-1], Image.BICUBIC) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels])


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('photos')
    (root / 'a').mkdir(), (root / 'b').mkdir()
    for i in range(10):
        Image.fromarray(PHOTO[i:, : 400 - 5 * i]).save(root / 'ab'[i % 2] / f'{i}.jpg', quality=95)
    Image.fromarray(PHOTO).save(root / 'a' / 'x.png')
    Image.fromarray(PHOTO).convert('L').save(root / 'b' / 'grey.jpg')
    Image.fromarray(PHOTO).convert('CMYK').save(root / 'b' / 'cmyk.jpg')
    return root


def seen(folder, workers=0, **kwargs):
    """The images of an epoch as they leave the preprocessor, and their labels."""
    pipeline = [dict(type='LoadRandomResizedCrop', scale=(48, 64), **kwargs), dict(type='PackInputs')]
    loader = Runner.build_dataloader(
        dict(
            dataset=ImageFolder(data_root=str(folder), pipeline=pipeline),
            batch_size=5,
            num_workers=workers,
            collate_fn=dict(type='labels_collate'),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        seed=0,
    )
    place_draws(loader, 0)
    preprocessor = MODELS.build(dict(type='mmpretrain.DeiTDataPreprocessor'))
    given = [preprocessor(batch, training=True) for batch in loader]
    images = torch.cat([batch['inputs'] for batch in given])
    return images, [int(sample.gt_label) for batch in given for sample in batch['data_samples']]


@pytest.mark.parametrize('height, width', [(300, 400), (31, 17), (200, 48), (1, 1)])
def test_crops_are_resized_as_by_pillow_without_rounding_between(height, width):
    size, crop = (48, 64), PHOTO[20 : 20 + height, 30 : 30 + width]
    pieces = Pieces(size)
    pieces.add_crop(crop, flip=False)
    pieces.add_crop(crop, flip=True)
    plain, flipped = images_of(pieces.batch(), CPU)
    expected = by_pillow(crop, size)
    distance = (plain.numpy() - np.clip(expected, -0.5, 255.49)).astype(np.float64)
    assert np.abs(distance).max() < 0.501  # a level to the nearest
    assert torch.equal(flipped, plain.flip(2))


def test_the_same_crops_as_without_the_device(folder):
    exact, labels = seen(folder)
    made, others = seen(folder, on_device='resize')
    distance = (exact.int() - made.int()).abs()
    assert others == labels and len(labels) == 13
    assert distance.max() <= 1 and (distance > 0).float().mean() < 0.15
    assert (distance > 0).any()


def test_files_give_the_same_as_crops(folder):
    """On a CPU, where one decoder decodes both."""
    made, labels = seen(folder, on_device='resize')
    for workers in (0, 2):
        again, others = seen(folder, workers, on_device='decode')
        assert torch.equal(made, again) and labels == others


def test_a_broken_image(folder, tmp_path):
    for name in 'ab':
        (tmp_path / name).mkdir()
        for path in (folder / name).iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
    data = bytearray((folder / 'a' / '0.jpg').read_bytes())
    table = data.index(b'\xff\xc4') + 5  # of Huffman codes; the rest of the header stays whole
    data[table : table + 16] = b'\xff' * 16
    (tmp_path / 'a' / '0.jpg').write_bytes(data)
    with pytest.raises(OSError, match=r'0\.jpg. is broken'):
        seen(tmp_path, on_device='resize')
    with pytest.raises(OSError, match='A JPEG of this batch is broken'):
        seen(tmp_path, on_device='decode')
    assert len(seen(tmp_path, on_device='resize', broken='resample')[1]) == 13


def test_an_unknown_place_is_refused():
    with pytest.raises(ValueError, match="on_device='gpu' is unknown: choose 'resize', 'decode' or None"):
        LoadRandomResizedCrop(on_device='gpu')
