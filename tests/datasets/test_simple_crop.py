"""The simple random crop against torchvision's transforms, of which the reference makes it."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from deit_plugin.datasets import LoadSimpleRandomCrop

SIDE = 32


def build(**kwargs):
    return LoadSimpleRandomCrop(**{**dict(scale=SIDE, decoder='pillow'), **kwargs})


def places(image, size):
    """What the reference may take: all crops of the resized and mirrored image, by their places."""
    resized = transforms.Resize(SIDE, InterpolationMode.BICUBIC)(image)
    padded = np.asarray(transforms.Pad(4, padding_mode='reflect')(resized))
    assert padded.shape[:2] == size
    return {
        (top, left): padded[top : top + SIDE, left : left + SIDE]
        for top in range(size[0] - SIDE + 1)
        for left in range(size[1] - SIDE + 1)
    }


@pytest.mark.parametrize('shape, padded', [((32, 50), (40, 58)), ((47, 32), (55, 40)), ((32, 32), (40, 40))])
def test_crops_are_those_of_torchvision_and_as_often(shape, padded):
    """Not resized, so equal; each pixel of its own colour tells the place."""
    pixels = np.random.RandomState(0).permutation(2**24)[: shape[0] * shape[1]]
    pixels = np.stack([pixels >> 16, pixels >> 8 & 255, pixels & 255], -1).astype(np.uint8).reshape(*shape, 3)
    wanted = {crop.tobytes(): place for place, crop in places(Image.fromarray(pixels), padded).items()}
    transform, taken, flips, number = build(), [], 0, 2000
    np.random.seed(0)
    for _ in range(number):
        results = transform(dict(img=pixels[..., ::-1]))
        rgb = results['img'][..., ::-1]
        flips += results['flip']
        taken.append(wanted[(rgb[:, ::-1] if results['flip'] else rgb).tobytes()])
    assert abs(flips / number - 0.5) < 4 * 0.5 / number**0.5
    for axis in (0, 1):
        count = padded[axis] - SIDE + 1
        share = np.bincount([place[axis] for place in taken], minlength=count) / number
        assert (np.abs(share - 1 / count) < 4 * (1 / count / number) ** 0.5).all()


@pytest.mark.parametrize('shape', [(75, 50), (50, 75), (20, 33), (64, 64), (133, 50)])
def test_it_is_resized_as_by_torchvision(shape):
    """But for two levels in few values; horizontal pass first, about which Pillow 13 decides by the shape."""
    pixels = np.random.RandomState(0).randint(0, 256, (*shape, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    size = transforms.Resize(SIDE, InterpolationMode.BICUBIC)(image).size
    resized = image.resize((size[0], shape[0]), Image.BICUBIC).resize(size, Image.BICUBIC)
    transform = build(padding=0, flip_prob=0)
    crops = [transform(dict(img=pixels[..., ::-1]))['img'][..., ::-1] for _ in range(3)]
    expected = np.asarray(resized)
    for crop in crops:
        gaps = [
            np.abs(np.int16(crop) - expected[top : top + SIDE, left : left + SIDE])
            for top in range(expected.shape[0] - SIDE + 1)
            for left in range(expected.shape[1] - SIDE + 1)
        ]
        nearest = min(gaps, key=lambda gap: gap.mean())
        assert nearest.max() <= 2 and (nearest > 0).mean() < 0.05


def test_a_file_is_read_and_packed(tmp_path):
    pixels = np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    results = build()(dict(img_path=str(tmp_path / 'a.png')))
    assert results['ori_shape'] == (40, 60) and results['img_shape'] == (SIDE, SIDE, 3)
    packed = TRANSFORMS.build(dict(type='PackInputs'))(results)['inputs']
    assert packed.data_ptr() == results['img'].ctypes.data and packed.shape == (3, SIDE, SIDE)
    assert packed.dtype == torch.uint8


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(scale=(32, 48)), r'scale=\(32, 48\) must be one int'),
        (dict(padding=32), 'padding=32 must be an int, at least 0 and below scale=32'),
        (dict(padding=-1), 'padding=-1 must be'),
        (dict(on_device='resize'), "on_device='resize'.*takes on_device=None"),
        (dict(flip_prob=2), 'flip_prob=2 must be in'),
    ],
)
def test_wrong_arguments_are_quoted(wrong, message):
    with pytest.raises(ValueError, match=message):
        build(**wrong)
