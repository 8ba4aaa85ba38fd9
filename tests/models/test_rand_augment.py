"""RandAugment of a batch against timm's, which works with Pillow."""

import itertools
import math
import random

import numpy as np
import pytest
import timm.data.auto_augment as timm_auto
import torch
from conftest import check_on_gpu
from PIL import Image

from deit_plugin.models.batch_operations import Plan
from deit_plugin.models.rand_augment import NAMES, RandAugment

FILL = (124, 116, 104)
LEVELS = 0, 0.37, 2.5, 5, 7.9, 8.6, 9, 9.123, 9.7, 9.99, 10
GEOMETRIC = 'Rotate', 'ShearX', 'ShearY', 'TranslateXRel', 'TranslateYRel'
DRAWS = 20000


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Thousands of small tensors, for which threads only cost time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def noise(height, width):
    return torch.randint(256, (3, height, width), dtype=torch.uint8)


def gradient(height, width):
    y = torch.linspace(0, 1, height)[:, None]
    x = torch.linspace(0, 1, width)
    return torch.stack(
        [
            (20 + 200 * x).expand(height, -1),
            (210 - 180 * y).expand(-1, width),
            255 * (x + y) / 2,
        ]
    ).byte()


def murky(height, width):
    """Few values, a different range in each channel, one of them constant."""
    divisor, offset = torch.tensor([[3, 20, 256], [20, 128, 77]])[..., None, None]
    return (noise(height, width) // divisor + offset).byte()


IMAGES = {f.__name__: f for f in (noise, gradient, murky)}


def plan_of(names, levels, signs):
    """A plan of one round."""
    ops = [NAMES.index(name) if name else -1 for name in names]
    return Plan(torch.tensor([ops]), torch.tensor([levels]).double(), torch.tensor([signs]).double())


def theirs(image, name, level, sign, fill=FILL):
    """timm's operation, as DeiT's reference sets it up."""
    if name == 'PosterizeIncreasing' and level == 10:
        # The 0 bits that Pillow 13 refuses and older ones take.
        return torch.zeros_like(image)
    op = timm_auto.AugmentOp(name, 1.0, level, dict(img_mean=fill, interpolation=Image.BICUBIC))
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(timm_auto, '_randomly_negate', lambda v: sign * v)
        result = np.array(op(picture))
    return torch.from_numpy(result).permute(2, 0, 1)


def gaps(ours, theirs):
    return (ours.int() - theirs.int()).abs()


def assert_share(hits, expected):
    """Within four standard deviations."""
    tolerance = 4 * math.sqrt(expected * (1 - expected) / hits.numel())
    assert abs(hits.double().mean() - expected) < tolerance


# The operations


def test_operations_are_timms():
    assert list(NAMES) == timm_auto._RAND_INCREASING_TRANSFORMS


@pytest.mark.parametrize('size', [(61, 47), (40, 96), (2, 5), (1, 1)])
@pytest.mark.parametrize('kind', IMAGES)
@pytest.mark.parametrize('name', NAMES)
def test_pixels_are_timms(name, kind, size):
    image = IMAGES[kind](*size)
    levels, signs = LEVELS * 2, (1,) * len(LEVELS) + (-1,) * len(LEVELS)
    ours = RandAugment().apply_plan(
        image.expand(len(levels), -1, -1, -1), plan_of([name] * len(levels), levels, signs)
    )
    gap = gaps(ours, torch.stack([theirs(image, name, *how) for how in zip(levels, signs)]))
    if name not in GEOMETRIC:
        assert gap.max() == 0
    else:
        # Levels of few digits give many a value that is a whole number but
        # for the rounding.
        assert gap.max() <= 1
        assert (gap > 0).double().mean() < (1e-3 if min(size) > 9 else 0.02)


@pytest.mark.parametrize('name', GEOMETRIC)
def test_geometry_at_random_levels(name):
    """The levels drawn, on an image as large as in training."""
    images = torch.stack([gradient(224, 224), noise(224, 224)])
    levels = RandAugment().draw(12).levels[0].tolist()
    gap = torch.stack(
        [
            gaps(
                RandAugment().apply_plan(images, plan_of([name] * 2, [level] * 2, [1, -1])),
                torch.stack([theirs(images[0], name, level, 1), theirs(images[1], name, level, -1)]),
            )
            for level in levels
        ]
    )
    assert gap.max() <= 1
    assert (gap > 0).double().mean() < 1e-4


@pytest.mark.parametrize('name', GEOMETRIC)
def test_small_fractions_are_not_lost(name):
    """A level that moves pixels by next to nothing: Pillow truncates, so what
    falls by next to nothing becomes one less."""
    image = noise(31, 45)
    ours = RandAugment().apply_plan(image[None], plan_of([name], [1e-6], [1]))
    expected = theirs(image, name, 1e-6, 1)
    assert (expected != image).double().mean() > 0.3
    # Rotation goes through two sums, the others through one.
    limit = 0.3 if name == 'Rotate' else 1e-3
    assert (ours[0] != expected).double().mean() < limit


def test_fill_is_rgb():
    fill = 1, 200, 30
    image = noise(20, 30)
    plan = plan_of(['TranslateXRel'], [10], [1])
    ours = RandAugment(fill=fill).apply_plan(image[None], plan)[0]
    assert ours[:, 10, -1].tolist() == list(fill)
    assert torch.equal(ours, theirs(image, 'TranslateXRel', 10, 1, fill))


def test_no_bits_are_a_black_image():
    plan = plan_of(['PosterizeIncreasing'] * 2, [10, 9.99], [1, 1])
    black, one_bit = RandAugment().apply_plan(noise(9, 9).expand(2, -1, -1, -1), plan)
    assert not black.any()
    assert set(one_bit.unique().tolist()) == {0, 128}


# Batches


def mixed(size=40, height=33, width=45):
    torch.manual_seed(1)
    images = torch.stack([IMAGES[kind](height, width) for kind in IMAGES for _ in range(size)])
    return images[torch.randperm(len(images))[:size]]


def test_rounds_of_a_batch_are_timms_one_after_the_other():
    images = mixed()
    plan = RandAugment(prob=0.8).draw(len(images))
    ours = RandAugment().apply_plan(images, plan)
    expected = []
    for i, image in enumerate(images):
        for op, level, sign in zip(*(part[:, i].tolist() for part in plan)):
            if op >= 0:
                image = theirs(image, NAMES[op], level, sign)
        expected.append(image)
    # What is 1 off may be further off after an equalization.
    assert (ours != torch.stack(expected)).double().mean() < 1e-3
    assert len(set(plan.ops.flatten().tolist())) > 12


def test_a_batch_is_its_images():
    augment, images = RandAugment(prob=0.8), mixed()
    plan = augment.draw(len(images))
    together = augment.apply_plan(images, plan)
    for i in range(len(images)):
        alone = augment.apply_plan(images[i : i + 1], Plan(*(part[:, i : i + 1] for part in plan)))
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize('size', [(33, 45), (40, 40)])
def test_rounds_follow_each_other(size):
    """Whatever the order in which the operations of all images are done."""
    images = mixed(80, *size)
    plan = RandAugment(num_ops=3, prob=0.9).draw(len(images))
    for i, names in enumerate(itertools.product(GEOMETRIC, repeat=2)):
        plan.ops[:2, i] = torch.tensor([NAMES.index(name) for name in names])
    expected = images
    for number in range(3):
        expected = RandAugment().apply_plan(expected, Plan(*(part[number : number + 1] for part in plan)))
    assert torch.equal(RandAugment().apply_plan(images, plan), expected)


@pytest.mark.parametrize('prob', [0.0, 0.9])
@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_input_stays(prob, layout):
    images = mixed().contiguous(memory_format=layout)
    before = images.clone()
    augmented = RandAugment(prob=prob)(images)
    assert torch.equal(images, before)
    assert torch.equal(augmented, before) == (prob == 0)
    assert augmented.shape == before.shape
    assert augmented.dtype == torch.uint8
    augmented.zero_()
    assert torch.equal(images, before)


def test_layout_does_not_matter():
    augment, images = RandAugment(prob=1.0), mixed()
    plan = augment.draw(len(images))
    assert torch.equal(
        augment.apply_plan(images, plan),
        augment.apply_plan(images.contiguous(memory_format=torch.channels_last), plan),
    )


def test_images_without_an_operation_stay():
    images = mixed(3)
    plan = plan_of(['Invert', None, 'Rotate'], [9, 9, 9], [1, 1, 1])
    augmented = RandAugment().apply_plan(images, plan)
    assert torch.equal(augmented[1], images[1])
    assert torch.equal(augmented[0], 255 - images[0])
    assert not torch.equal(augmented[2], images[2])


@pytest.mark.parametrize('size', [0, 1])
def test_small_batches(size):
    assert RandAugment()(mixed(3)[:size]).shape == (size, 3, 33, 45)


def test_nothing_is_read_from_the_device():
    """Tensors on the meta device hold nothing that could be read."""
    augment = RandAugment(prob=1.0)
    plan = augment.draw(200)
    assert set(plan.ops.flatten().tolist()) == set(range(len(NAMES)))
    images = torch.empty(200, 3, 33, 45, dtype=torch.uint8, device='meta')
    assert augment.apply_plan(images, plan).shape == images.shape


def test_no_weights():
    assert not RandAugment().state_dict()
    assert not list(RandAugment().parameters())


# What is drawn


@pytest.fixture(scope='module')
def drawn():
    torch.manual_seed(0)
    return RandAugment().draw(DRAWS)


def test_operations_and_how_often(drawn):
    ops = drawn.ops
    assert ops.shape == (2, DRAWS)
    assert_share(ops >= 0, 0.5)
    for i in range(len(NAMES)):
        assert_share(ops == i, 0.5 / 15)
    # With replacement, and independently.
    both = ops[:, (ops >= 0).all(0)]
    assert_share(both[0] == both[1], 1 / 15)
    assert_share((ops >= 0).all(0), 0.25)


def test_levels_are_normal_and_clipped(drawn):
    levels = drawn.levels.flatten()
    assert levels.max() == 10
    for deviations in (-2, -1, 0, 1, 1.9):
        below = 0.5 * (1 + math.erf(deviations / math.sqrt(2)))
        assert_share(levels < 9 + 0.5 * deviations, below)
    assert_share(levels == 10, 0.5 * math.erfc(2 / math.sqrt(2)))
    low = RandAugment(magnitude=0.1).draw(DRAWS).levels
    assert low.min() == 0 and low.max() > 1
    # Each application its own, whatever is drawn and in which direction.
    first, second = drawn.levels
    assert_share((first < 9) == (second < 9), 0.5)
    assert_share((first < 9) == (drawn.signs[0] < 0), 0.5)
    assert_share((first < 9)[drawn.ops[0] >= 0], 0.5)


def test_signs(drawn):
    assert set(drawn.signs.unique().tolist()) == {-1, 1}
    assert_share(drawn.signs > 0, 0.5)
    assert_share(drawn.signs[0] == drawn.signs[1], 0.5)
    assert_share(drawn.signs[drawn.ops >= 0] > 0, 0.5)


def test_arguments_matter():
    plan = RandAugment(4.0, 0.0, num_ops=3, prob=1.0).draw(100)
    assert plan.ops.shape == (3, 100) and (plan.ops >= 0).all()
    assert (plan.levels == 4).all()
    assert (RandAugment(prob=0.0).draw(100).ops == -1).all()
    assert RandAugment(magnitude_std=2.0).draw(DRAWS).levels.std() > 1.2


def test_torchs_seed_alone_fixes_the_result():
    augment, images = RandAugment(), mixed()
    states = random.getstate(), np.random.get_state()[1].tolist()
    torch.manual_seed(3)
    first = augment(images)
    assert states == (random.getstate(), np.random.get_state()[1].tolist())
    random.seed(5)
    np.random.seed(5)
    other = augment(images)
    torch.manual_seed(3)
    assert torch.equal(augment(images), first)
    assert not torch.equal(other, first)


@pytest.mark.gpu
def test_cuda():
    check_on_gpu(RandAugment(prob=0.9), mixed())


# Errors


@pytest.mark.parametrize(
    'kwargs, quoted',
    [
        (dict(magnitude=11.0), 'magnitude=11.0'),
        (dict(magnitude=-1), 'magnitude=-1'),
        (dict(magnitude=math.nan), 'magnitude=nan'),
        (dict(magnitude_std=-0.5), 'magnitude_std=-0.5'),
        (dict(magnitude_std=math.inf), 'magnitude_std=inf'),
        (dict(num_ops=0), 'num_ops=0'),
        (dict(num_ops=1.5), 'num_ops=1.5'),
        (dict(prob=1.5), 'prob=1.5'),
        (dict(prob=-0.1), 'prob=-0.1'),
        (dict(fill=(1, 2)), r'fill=\(1, 2\)'),
        (dict(fill=(1, 2, 256)), r'fill=\(1, 2, 256\)'),
        (dict(fill=(1.0, 2.0, 3.0)), r'fill=\(1.0, 2.0, 3.0\)'),
    ],
)
def test_bad_arguments(kwargs, quoted):
    with pytest.raises(ValueError, match=quoted):
        RandAugment(**kwargs)


@pytest.mark.parametrize(
    'images, quoted',
    [
        (torch.zeros(2, 3, 8, 8), 'torch.float32'),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r'\(3, 8, 8\)'),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), r'\(2, 1, 8, 8\)'),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), r'\(2, 8, 8, 3\)'),
        (torch.zeros(2, 3, 0, 8, dtype=torch.uint8), r'\(2, 3, 0, 8\)'),
    ],
)
def test_bad_images(images, quoted):
    with pytest.raises(ValueError, match=quoted):
        RandAugment()(images)
    with pytest.raises(ValueError, match=quoted):
        RandAugment().apply_plan(images, RandAugment().draw(2))


def test_plan_for_another_batch():
    with pytest.raises(ValueError, match='for 4 images, not for 3'):
        RandAugment().apply_plan(mixed(3), RandAugment().draw(4))
