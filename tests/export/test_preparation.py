"""Images are prepared in a graph as Pillow and OpenCV prepare them."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from sklearn.datasets import load_sample_images

from deit_plugin.export.preparation import ImagePreparation

LEVELS = dict(mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4])


def pipeline(*steps):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Compose([*steps, dict(type='PackInputs')])


def preprocessor(**kwargs):
    return MODELS.build(dict(type='mmpretrain.ClsDataPreprocessor', **{**LEVELS, 'to_rgb': True, **kwargs}))


def edge(scale, edge='short', backend='pillow', interpolation='bicubic'):
    return dict(type='ResizeEdge', scale=scale, edge=edge, backend=backend, interpolation=interpolation)


def whole(width, height, backend='pillow', interpolation='bicubic'):
    return dict(type='Resize', scale=(width, height), backend=backend, interpolation=interpolation)


CROP = dict(type='CenterCrop', crop_size=(96, 97))
# The share of pixels that may differ, by one level. OpenCV's bilinear filter has weights of few bits.
EXACT, ONE_LEVEL = 1e-3, 0.2


@pytest.mark.parametrize(
    'steps, share',
    [
        ([edge(110), CROP], EXACT),
        ([edge(256), dict(type='CenterCrop', crop_size=224)], EXACT),
        ([edge(500), CROP], EXACT),
        ([edge(110, interpolation='bilinear'), CROP], 5e-3),
        ([edge(250, edge='long'), CROP], EXACT),
        ([edge(160, edge='width'), CROP], EXACT),
        ([edge(150, edge='height'), CROP], EXACT),
        ([edge(110, backend='cv2'), CROP], EXACT),
        ([edge(110, backend='cv2', interpolation='bilinear'), CROP], ONE_LEVEL),
        ([whole(50, 60)], EXACT),
        ([whole(700, 800)], EXACT),
        ([whole(50, 60, backend='cv2')], EXACT),
        ([whole(700, 800, backend='cv2')], EXACT),
        ([whole(60, 50, backend='cv2', interpolation='bilinear')], ONE_LEVEL),
        ([CROP], 0),
    ],
)
def test_pixels_are_the_librarys(steps, share):
    transforms = pipeline(*steps).transforms
    prepare = ImagePreparation(transforms, preprocessor())
    first, second = load_sample_images().images
    for image in (first, second[:200, :201], first[::2, ::3], second[:333, :250]):
        expected = Compose(transforms)(dict(img=image[..., ::-1].copy()))['inputs'].flip(0)
        given = prepare(torch.from_numpy(image.copy())[None])[0] * prepare.std + prepare.mean
        assert given.shape == expected.shape
        difference = (given - expected).abs().round()
        height_first = image.shape[0] - given.shape[1] > 2 * (image.shape[1] - given.shape[2])
        assert difference.max() <= 1 + height_first, (image.shape, difference.max())
        assert (difference > 0).float().mean() <= (ONE_LEVEL if height_first else share), image.shape


def test_an_image_that_is_smaller_than_the_crop_has_a_black_border():
    """The model could take no other size; evaluation refuses it."""
    image = torch.full((1, 30, 30, 3), 200, dtype=torch.uint8)
    for steps in ([CROP], [edge(60), CROP], [edge(60, backend='cv2'), CROP]):
        prepare = ImagePreparation(pipeline(*steps).transforms, preprocessor(mean=[0.0] * 3, std=[1.0] * 3))
        pixels = prepare(image)
        assert pixels.shape == (1, 3, 97, 96) and pixels[..., 48, 48].eq(200).all()
        assert pixels[..., 0, 0].eq(0).all() or steps[0].get('backend') == 'cv2'


@pytest.mark.parametrize('to_rgb', [True, False])
@pytest.mark.parametrize('reverse', [True, False])
def test_channels_are_those_of_the_model(to_rgb, reverse):
    steps = [dict(type='ReverseChannels')] if reverse else []
    transforms, after = pipeline(CROP, *steps).transforms, preprocessor(to_rgb=to_rgb)
    image = load_sample_images().images[0]
    sample = Compose(transforms)(dict(img=image[..., ::-1].copy()))
    expected = after(dict(inputs=[sample['inputs']]))['inputs']
    given = ImagePreparation(transforms, after)(torch.from_numpy(image.copy())[None])
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize('spare', range(5))
def test_a_crop_of_an_odd_rest_is_mmcvs(spare):
    transforms = pipeline(dict(type='CenterCrop', crop_size=8)).transforms
    image = np.random.RandomState(0).randint(0, 256, (8 + spare, 13, 3), dtype=np.uint8)
    expected = Compose(transforms)(dict(img=image[..., ::-1].copy()))['inputs'].flip(0).float()
    prepare = ImagePreparation(transforms, preprocessor(mean=[0.0] * 3, std=[1.0] * 3))
    assert torch.equal(prepare(torch.from_numpy(image)[None])[0], expected)


@pytest.mark.parametrize(
    'steps, kwargs, message',
    [
        ([edge(40)], {}, 'no fixed size'),
        ([], {}, 'neither resized nor cropped'),
        ([CROP, whole(9, 9)], {}, 'Only one resize and then one crop'),
        ([whole(9, 9), whole(8, 8)], {}, 'Only one resize and then one crop'),
        ([edge(99, interpolation='lanczos'), CROP], {}, 'bilinear and bicubic'),
        ([dict(type='Resize', scale=(9, 9), keep_ratio=True)], {}, 'bilinear and bicubic'),
        ([dict(type='Pad', size=(9, 9)), CROP], {}, 'Pad cannot be part of the graph'),
        ([CROP], dict(pad_size_divisor=32), 'does not normalise alone'),
        ([CROP], dict(mean=None, std=None), 'does not normalise alone'),
    ],
)
def test_what_has_no_place_in_a_graph(steps, kwargs, message):
    with pytest.raises(ValueError, match=message):
        ImagePreparation(pipeline(*steps).transforms, preprocessor(**kwargs))
