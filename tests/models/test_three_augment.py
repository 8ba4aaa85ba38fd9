"""3-Augment of a batch against Pillow and torchvision, with which the reference makes it."""

import itertools
import math

import numpy as np
import pytest
import torch
from conftest import check_on_gpu
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms
from torchvision.transforms import functional

from deit_plugin.models import DeiTDataPreprocessor
from deit_plugin.models.batch_operations import Plan
from deit_plugin.models.three_augment import NAMES, ThreeAugment

DRAWS = 20000
FACTORS = 0.0, 0.1, 0.7, 0.7001, 0.85, 0.99, 1.0, 1.0001, 1.13, 1.2999, 1.3, 2.0
RADII = 0.1, 0.1001, 0.5, 1.0, 1.2247, 1.4142, 1.4143, 1.5, 1.73, 1.9999, 2.0
PEERS = dict(
    Solarize=lambda image, level: ImageOps.solarize(image),
    GaussianBlur=lambda image, level: image.filter(ImageFilter.GaussianBlur(radius=level)),
    Color=functional.adjust_saturation,
    Brightness=functional.adjust_brightness,
    Contrast=functional.adjust_contrast,
)


def noise(height, width):
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


def edges(height, width):
    """Black and white, where a sum of 32 bits is at its ends."""
    return (torch.rand(3, height, width) < 0.5).byte() * 255


def dark(height, width):
    return noise(height, width) // 16


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def tensor(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def plan_of(*rounds):
    """Of the names and the levels of each round."""
    ops = [[NAMES.index(name) for name in names] for names, _ in rounds]
    levels = torch.tensor([levels for _, levels in rounds]).double()
    return Plan(torch.tensor(ops), levels, torch.ones(levels.shape))


@pytest.mark.parametrize('make', [noise, edges, dark])
@pytest.mark.parametrize('size', [(32, 48), (37, 53), (5, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize('name', NAMES)
def test_operations_equal_pillow(name, size, make):
    image = make(*size)
    levels = RADII if name == 'GaussianBlur' else FACTORS
    plan = plan_of(([name] * len(levels), levels))
    given = ThreeAugment().apply_plan(image.expand(len(levels), -1, -1, -1), plan)
    expected = torch.stack([tensor(PEERS[name](pillow(image), level)) for level in levels])
    assert torch.equal(given, expected)


def test_grey_is_torchvisions():
    image = noise(30, 40)
    given = ThreeAugment().apply_plan(image[None], plan_of((['Color'], [0.0])))
    assert torch.equal(given[0], tensor(transforms.Grayscale(3)(pillow(image))))


def test_a_batch_as_it_is_drawn():
    """Each image with its own operations one after another, whatever is done together."""
    augment = ThreeAugment()
    images = torch.stack([noise(24, 24) for _ in range(60)])
    plan = augment.draw(len(images))
    given = augment.apply_plan(images, plan)
    for i, image in enumerate(images):
        expected = pillow(image)
        for op, level in zip(plan.ops[:, i].tolist(), plan.levels[:, i].tolist()):
            expected = PEERS[NAMES[op]](expected, level)
        assert torch.equal(given[i], tensor(expected)), i


def assert_share(hits, expected):
    """Within four standard deviations."""
    hits = hits.double()
    assert abs(hits.mean() - expected) < 4 * math.sqrt(expected * (1 - expected) / hits.numel())


def test_what_is_drawn():
    ops, levels, _ = ThreeAugment().draw(DRAWS)
    one, jitter = ops[0], ops[1:]
    for name in ('Solarize', 'GaussianBlur', 'Color'):
        assert_share(one == NAMES.index(name), 1 / 3)
    radii = levels[0, one == NAMES.index('GaussianBlur')]
    assert radii.min() >= 0.1 and radii.max() <= 2
    assert_share(radii < 1.05, 0.5)
    assert (levels[0, one == NAMES.index('Color')] == 0).all()  # grey
    orders = [NAMES.index(name) for name in ('Color', 'Brightness', 'Contrast')]
    for order in itertools.permutations(orders):
        assert_share((jitter == torch.tensor(order)[:, None]).all(0), 1 / 6)
    factors = levels[1:]
    assert factors.min() >= 0.7 and factors.max() <= 1.3
    for row in factors:
        assert_share(row < 1, 0.5)
        assert_share(row < 0.85, 0.25)
    assert_share((factors[0] < 1) == (factors[1] < 1), 0.5)


def test_the_range_is_that_of_torchvisions_color_jitter():
    jitter = transforms.ColorJitter(0.3, 0.3, 0.3)
    ranges = {tuple(value) for value in (jitter.brightness, jitter.contrast, jitter.saturation)}
    assert ranges == {(0.7, 1.3)} and jitter.hue is None
    assert ThreeAugment(color_jitter=0).draw(9).ops.shape == (1, 9)


def test_the_preprocessor_augments_rgb_in_training_alone():
    pre = DeiTDataPreprocessor(three_augment=dict(color_jitter=0), mean=[0.0] * 3, std=[1.0] * 3, to_rgb=True)
    images = torch.stack([noise(16, 16) for _ in range(8)])  # BGR
    torch.manual_seed(5)
    given = pre(dict(inputs=images), training=True)['inputs']
    torch.manual_seed(5)
    assert torch.equal(given, ThreeAugment(color_jitter=0)(images.flip(1)).float())
    assert torch.equal(pre(dict(inputs=images))['inputs'], images.flip(1).float())


@pytest.mark.gpu
def test_cuda():
    check_on_gpu(ThreeAugment(), torch.stack([noise(40, 56) for _ in range(64)]))


def test_bad_arguments():
    with pytest.raises(ValueError, match=r'color_jitter=1.5 is not in \[0, 1\]'):
        ThreeAugment(color_jitter=1.5)
    with pytest.raises(ValueError, match='max_radius=2.5 must be above 0'):
        ThreeAugment(max_radius=2.5)
    with pytest.raises(ValueError, match='exclude each other'):
        DeiTDataPreprocessor(rand_augment={}, three_augment={})
    with pytest.raises(ValueError, match='float32, not uint8'):
        ThreeAugment()(torch.rand(2, 3, 8, 8))
