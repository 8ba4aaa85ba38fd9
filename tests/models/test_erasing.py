"""Random erasing of a batch against timm's, which takes one image after the other."""

import random

import pytest
import torch
from timm.data.random_erasing import RandomErasing

from deit_plugin.models.erasing import BatchErasing


@pytest.mark.parametrize('shape', [(64, 3, 40, 56), (64, 1, 7, 5), (16, 4, 1, 1), (0, 3, 8, 8)])
@pytest.mark.parametrize('probability', [0.0, 0.25, 1.0])
def test_boxes_are_timms(shape, probability):
    """The very same, for the same seed of Python's generator, and as many draws."""
    images, after = [], []
    for erase in (RandomErasing(probability, mode='pixel', device='cpu'), BatchErasing(probability)):
        random.seed(4)
        images.append(erase(torch.full(shape, 9.0)))
        after.append(random.getstate())
    theirs, ours = (image != 9 for image in images)
    assert torch.equal(ours, theirs)
    assert ours.any() == (probability > 0 and shape[2] > 1 and shape[0] > 0)
    assert after[0] == after[1]


def test_values_are_normal():
    """Each its own: none appears twice, and they fit N(0, 1)."""
    torch.manual_seed(0)
    images = BatchErasing(1.0)(torch.full((200, 3, 32, 32), 9.0))
    values = images[images != 9].double()
    assert len(values.unique()) > 0.99 * len(values) > 50000
    below = torch.distributions.Normal(0.0, 1.0).cdf(values.sort().values)
    assert (below - torch.linspace(0, 1, len(values))).abs().max() < 1.95 / len(values) ** 0.5
    flat = values[: len(values) // 2 * 2].view(-1, 2).T
    assert torch.corrcoef(flat)[0, 1].abs() < 4 / flat.shape[1] ** 0.5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_type_stays(dtype):
    images = torch.full((8, 3, 20, 20), 9, dtype=dtype)
    erased = BatchErasing(1.0)(images)
    assert erased is images and erased.dtype == dtype
    assert 0.2 < erased[erased != 9].float().std() < 3


@pytest.mark.parametrize('layout', ['channels_last', 'expanded', 'window'])
def test_layout_does_not_matter(layout):
    plain = torch.arange(8.0)[:, None, None, None].add(9).expand(8, 3, 20, 24)
    images = plain.clone(memory_format=torch.contiguous_format)
    other = {
        'channels_last': images.contiguous(memory_format=torch.channels_last),
        'expanded': plain,
        'window': torch.cat([images, images], 3)[..., :24],
    }[layout]
    results = []
    for given in (images.clone(), other):
        random.seed(1)
        torch.manual_seed(1)
        results.append(BatchErasing(1.0)(given))
    assert torch.equal(*results) and not torch.equal(results[0], images)


def test_seeds_fix_the_result():
    results = []
    for seed in (1, 1, 2):
        random.seed(0)
        torch.manual_seed(seed)
        results.append(BatchErasing(1.0)(torch.zeros(4, 3, 20, 20)))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
