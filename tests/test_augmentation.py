"""The training images against timm's: what DeiT's reference draws them with.

Distributions are compared by the greatest gap between the two samples'
distribution functions, against the gap that chance leaves one time in a
thousand. The seeds are fixed, so a test that passes passes always.
"""
import math
import random
from copy import copy, deepcopy
from pathlib import Path

import mmcv
import mmpretrain.datasets  # noqa: F401
import numpy as np
import pytest
import timm.data.auto_augment as timm_auto
import torch
from mmengine.config import Config
from mmpretrain.models import RandomBatchAugment
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.functional import resized_crop

CONFIG = Path(__file__).parents[1] / 'configs' / 'deit_tiny.py'
IMAGES = 20000
# mmpretrain's name of an operation, and its direction: timm's name.
TIMM_NAMES = {
    'Posterize': 'PosterizeIncreasing',
    'Solarize': 'SolarizeIncreasing',
    'ColorTransform': 'ColorIncreasing',
    'Contrast': 'ContrastIncreasing',
    'Brightness': 'BrightnessIncreasing',
    'Sharpness': 'SharpnessIncreasing',
    'Shear horizontal': 'ShearX',
    'Shear vertical': 'ShearY',
    'Translate horizontal': 'TranslateXRel',
    'Translate vertical': 'TranslateYRel',
}
# The argument that does nothing, and how far a level moves it either way.
SIGNED = {
    'Rotate': (0, 3.),
    'ColorIncreasing': (1, .09),
    'ContrastIncreasing': (1, .09),
    'BrightnessIncreasing': (1, .09),
    'SharpnessIncreasing': (1, .09),
    'ShearX': (0, .03),
    'ShearY': (0, .03),
    'TranslateXRel': (0, .045),
    'TranslateYRel': (0, .045),
}
UNSIGNED = 'PosterizeIncreasing', 'SolarizeIncreasing', 'SolarizeAdd'
PLAIN = 'AutoContrast', 'Equalize', 'Invert'
GEOMETRIC = 'Rotate', 'ShearX', 'ShearY', 'TranslateXRel', 'TranslateYRel'


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    """Thousands of small tensors, for which threads only cost time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def cfg():
    return Config.fromfile(CONFIG)


@pytest.fixture(autouse=True)
def seeds():
    seed_all()


def seed_all(seed=0):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def transform(cfg, name):
    pipeline = cfg.train_dataloader.dataset.pipeline
    found, = [t for t in pipeline if t['type'] == name]
    return TRANSFORMS.build(found)


def preprocessor(cfg, **kwargs):
    """As ``ImageClassifier`` builds it."""
    mixing = deepcopy(cfg.model.train_cfg)
    return MODELS.build({
        **cfg.data_preprocessor, 'batch_augments': mixing,
        **kwargs
    })


def assert_same_distribution(ours, theirs):
    ours, theirs = np.sort(ours), np.sort(theirs)
    at = np.concatenate([ours, theirs])
    gap = np.abs(
        np.searchsorted(ours, at, 'right') / len(ours)
        - np.searchsorted(theirs, at, 'right') / len(theirs)).max()
    assert gap < 1.95 * math.sqrt(1 / len(ours) + 1 / len(theirs))


def assert_share(hits, expected):
    """Within four standard deviations."""
    tolerance = 4 * math.sqrt(expected * (1 - expected) / len(hits))
    assert abs(np.mean(hits) - expected) < tolerance


def test_nothing_else_is_in_the_pipeline(cfg):
    assert [t['type'] for t in cfg.train_dataloader.dataset.pipeline] == [
        'LoadImageFromFile', 'RandomResizedCrop', 'RandomFlip', 'RandAugment',
        'PackInputs'
    ]


# Loading, cropping and flipping


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_loading_is_pillows(cfg, photo, tmp_path, mode):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side, which the reference does not see
    path = tmp_path / 'photo.jpg'
    photo.convert(mode).save(path, exif=exif)
    ours = transform(cfg, 'LoadImageFromFile')(dict(img_path=str(path)))
    theirs = np.array(Image.open(path).convert('RGB'))
    np.testing.assert_array_equal(ours['img'][..., ::-1], theirs)


@pytest.mark.parametrize('shape', [(375, 500), (1000, 100)])
def test_crops_are_torchvisions(cfg, shape):
    crop = transform(cfg, 'RandomResizedCrop')
    peer = RandomResizedCrop(224, scale=(.08, 1.), ratio=(3 / 4, 4 / 3))
    image = np.empty((*shape, 3), np.uint8)
    tensor = torch.empty(3, *shape)
    ours = [crop.rand_crop_params(image) for _ in range(4000)]
    theirs = [
        peer.get_params(tensor, peer.scale, peer.ratio) for _ in range(4000)
    ]
    top, left, height, width = np.transpose(ours)
    peer_top, peer_left, peer_height, peer_width = np.transpose(theirs)
    assert_same_distribution(height * width, peer_height * peer_width)
    assert_same_distribution(width / height, peer_width / peer_height)
    assert_same_distribution(top, peer_top)
    assert_same_distribution(left, peer_left)


def test_cropped_pixels_are_pillows(cfg):
    crop = transform(cfg, 'RandomResizedCrop')
    photo = load_sample_image('china.jpg')
    for i in range(5):
        seed_all(i)
        box = crop.rand_crop_params(photo)
        seed_all(i)
        ours = crop(dict(img=photo))['img']
        theirs = resized_crop(
            Image.fromarray(photo), *box, (224, 224), Image.BICUBIC)
        np.testing.assert_array_equal(ours, np.array(theirs))


def test_flips(cfg):
    flip = transform(cfg, 'RandomFlip')
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    flipped = []
    for _ in range(4000):
        out = flip(dict(img=image))['img']
        flipped.append(not np.array_equal(out, image))
        assert np.array_equal(out[:, ::-1] if flipped[-1] else out, image)
    assert_share(flipped, .5)


# RandAugment


def timm_policy():
    return timm_auto.rand_augment_transform(
        'rand-m9-mstd0.5-inc1',
        dict(
            translate_const=100,
            img_mean=(124, 116, 104),
            interpolation=Image.BICUBIC))


def timm_name(operation):
    name = type(operation).__name__
    if hasattr(operation, 'direction'):
        name = f'{name} {operation.direction}'
    return TIMM_NAMES.get(name, name)


class Log(list):
    """What was drawn: a name, if it was applied, and with which argument."""

    def watch(self, name, operation):

        def draw(image):
            self.append((name, False, None))
            return operation(image)

        return draw

    def applied(self, image, *args, **kwargs):
        argument = (*args, *kwargs.values(), None)[0]
        self[-1] = self[-1][0], True, argument
        return image


def draw_ours(policy, monkeypatch):
    log = Log()
    for name in ('auto_contrast', 'imequalize', 'iminvert', 'imrotate',
                 'posterize', 'solarize', 'adjust_color', 'adjust_contrast',
                 'adjust_brightness', 'adjust_sharpness', 'imshear',
                 'imtranslate'):
        monkeypatch.setattr(mmcv, name, log.applied)
    policy.transforms = [
        log.watch(timm_name(t),
                  add(t, log) if timm_name(t) == 'SolarizeAdd' else t)
        for t in policy.transforms
    ]
    for _ in range(IMAGES):
        # Of one pixel, so that an offset is a share of the side.
        policy(dict(img=np.zeros((1, 1, 3), np.uint8)))
    return log


def add(operation, log):
    """It calls nothing of mmcv, but a black image tells what was added."""

    def call(results):
        added = int(operation(results)['img'].max())
        if added:
            log.applied(None, added)
        return dict(img=np.zeros((1, 1, 3), np.uint8))

    return call


def draw_timms(policy):
    log = Log()
    policy.ops = [copy(op) for op in policy.ops]
    for op in policy.ops:
        # Without the keywords: the fill colour is no argument drawn.
        op.aug_fn = lambda image, *args, **_: log.applied(image, *args)
    policy.ops = [log.watch(op.name, op) for op in policy.ops]
    for _ in range(IMAGES):
        policy(None)
    return log


@pytest.fixture(scope='module')
def drawn(cfg):
    """Ours and timm's draws for as many images."""
    seed_all()
    with pytest.MonkeyPatch.context() as monkeypatch:
        ours = draw_ours(transform(cfg, 'RandAugment'), monkeypatch)
    return ours, draw_timms(timm_policy())


def arguments(log, name):
    values = [argument for n, on, argument in log if n == name and on]
    if name == 'SolarizeIncreasing':
        # No pixel lies between a threshold and the next whole number, which
        # is the one that timm takes.
        values = np.ceil(values)
    return np.array(values, float)


def levels(log):
    return np.concatenate([
        abs(arguments(log, name) - centre) / step
        for name, (centre, step) in SIGNED.items()
    ])


def test_operations_and_how_often(cfg, drawn):
    names = [timm_name(t) for t in transform(cfg, 'RandAugment').transforms]
    assert names == timm_auto._RAND_INCREASING_TRANSFORMS
    assert len(names) == 15
    for log in drawn:
        assert len(log) == 2 * IMAGES
        picked = np.array([name for name, _, _ in log])
        applied = np.array([on for _, on, _ in log])
        assert_share(applied, .5)
        for name in names:
            assert_share(picked == name, 1 / 15)
            assert_share(applied[picked == name], .5)
        # With replacement, and independently.
        assert_share(picked[::2] == picked[1::2], 1 / 15)
        assert_share(applied[::2] == applied[1::2], .5)


@pytest.mark.parametrize('name', [*SIGNED, *UNSIGNED])
def test_arguments_are_drawn_as_timms(drawn, name):
    ours, theirs = (arguments(log, name) for log in drawn)
    assert_same_distribution(ours, theirs)
    if name in SIGNED:
        assert_share(ours > SIGNED[name][0], .5)


def test_levels_are_normal_and_clipped(drawn):
    ours, theirs = (levels(log) for log in drawn)
    assert_same_distribution(ours, theirs)
    assert abs(np.median(ours) - 9) < .03
    assert ours.max() < 10 + 1e-6
    above = .5 * math.erfc(2 / math.sqrt(2))  # two deviations over 9
    assert_share(ours > 10 - 1e-6, above)


@pytest.fixture(scope='module')
def photo():
    image = Image.fromarray(load_sample_image('china.jpg'))
    return image.resize((224, 224), Image.BICUBIC)


def ours_on(photo, operation, level, negative):
    operation = copy(operation)
    operation.prob, operation.magnitude_std = 1., 0
    operation.magnitude_level = level
    operation.random_negative_prob *= 2 * negative  # 0.5 or, unsigned, 0
    bgr = np.array(photo)[..., ::-1].copy()
    return operation(dict(img=bgr))['img'][..., ::-1].astype(int)


def timms_on(photo, operation, level, negative, monkeypatch):
    # mmcv turns and moves to the other side; either is drawn half the time.
    if operation.name in GEOMETRIC:
        negative = not negative
    monkeypatch.setattr(timm_auto, '_randomly_negate', lambda v: -v
                        if negative else v)
    operation = copy(operation)
    operation.prob, operation.magnitude_std = 1., 0
    operation.magnitude = level
    if operation.name in ('ShearX', 'ShearY'):
        operation.aug_fn = centred(operation.aug_fn)
    if operation.name == 'PosterizeIncreasing':
        operation.aug_fn = posterize
    return np.array(operation(photo)).astype(int)


def posterize(image, bits, **_):
    # Pillow 13 refuses the 0 bits of level 10, which are a black image in
    # older ones.
    return timm_auto.posterize(image, bits) if bits \
        else Image.new('RGB', image.size)


def centred(shear):
    """Pillow shears around the image's corner and OpenCV around the centre
    of the first pixel: 0.15 pixels apart at most, in a mean of 1.1 to 1.9."""

    def call(image, factor, **kwargs):
        matrix = [1, factor, -factor / 2, 0, 1, 0]
        if shear is timm_auto.shear_y:
            matrix = [1, 0, 0, factor, 1, -factor / 2]
        return image.transform(image.size, Image.AFFINE, matrix, **kwargs)

    return call


@pytest.mark.parametrize('negative', [False, True])
@pytest.mark.parametrize('level', [0, 5, 7.3, 9, 10])
@pytest.mark.parametrize('i', range(15))
def test_pixels_are_timms(cfg, photo, monkeypatch, i, level, negative):
    operation = transform(cfg, 'RandAugment').transforms[i]
    name = timm_name(operation)
    ours = ours_on(photo, operation, level, negative)
    theirs = timms_on(photo, timm_policy().ops[i], level, negative,
                      monkeypatch)
    gap = abs(ours - theirs)
    if name in (*PLAIN, *UNSIGNED):
        assert gap.max() == 0
    elif name in ('BrightnessIncreasing', 'ContrastIncreasing'):
        assert gap.max() <= 1 and gap.mean() < .05  # float32, then cut
    elif name == 'ColorIncreasing':
        # OpenCV rounds where Pillow cuts the fraction off.
        assert gap.max() <= 2 and gap.mean() < .5
    elif name == 'SharpnessIncreasing':
        # Pillow leaves the outermost pixels, OpenCV mirrors the image there.
        assert gap[1:-1, 1:-1].max() <= 2 and gap.mean() < .5
    else:
        # Both bicubic, but the kernel's parameter is -1 in Pillow and -0.75
        # in OpenCV, which also takes positions in steps of 1/32 pixel, rounds
        # and mixes the fill colour into the edge. Bilinear, another fill or
        # 0.1 levels more are all further away: 0.98 at the least.
        limit = dict(R=1.1, S=.85, T=.85)[name[0]]
        assert gap.mean() < limit and np.mean(gap > 16) < .006


# Mixup and cutmix


def mixing_batch():
    """Each image is all in a channel of its own: a mixed pixel holds the
    weights of the images in it, and an image's mean its target."""
    target = torch.arange(4)
    scores = torch.eye(4)
    return scores[:, :, None, None].repeat(1, 1, 64, 64), target, scores


def describe(images, targets):
    """If it was mixup, and lambda; None where all met themselves."""
    torch.testing.assert_close(
        images.mean((2, 3)), targets, atol=1e-5, rtol=1e-5)
    own = targets.diag()
    moved = (targets > 0).sum(1) > 1
    if not moved.any():
        return None
    lam = own[moved][0].item()
    torch.testing.assert_close(own[moved], torch.full((moved.sum(), ), lam))
    assert ((targets > 0).sum(1) <= 2).all()  # two images in each
    mixed = ((images > 0) & (images < 1)).any().item()
    return mixed, lam


def mixes(call, monkeypatch, n=4000):
    """Rows: if it was mixup, lambda, lambda before any correction, and the
    parameters of the distribution that it was drawn from."""
    draw, drawn, seen = np.random.beta, [], []

    def beta(a, b):
        drawn.append((draw(a, b), a, b))
        return drawn[-1][0]

    monkeypatch.setattr(np.random, 'beta', beta)
    for _ in range(n):
        seen.append(describe(*call()))
    monkeypatch.undo()
    assert len(drawn) == n  # one for each batch
    rows = [(*s, *d) for s, d in zip(seen, drawn) if s is not None]
    return np.array(rows)


@pytest.fixture(scope='module')
def mixed(cfg):
    seed_all()
    augment = RandomBatchAugment(**deepcopy(cfg.model.train_cfg))
    peer = Mixup(
        .8,
        1.,
        prob=1.,
        switch_prob=.5,
        mode='batch',
        label_smoothing=0.,
        num_classes=4)

    def ours():
        images, _, scores = mixing_batch()
        return augment(images, scores)

    def theirs():
        images, target, _ = mixing_batch()
        return peer(images, target)

    with pytest.MonkeyPatch.context() as monkeypatch:
        return mixes(ours, monkeypatch), mixes(theirs, monkeypatch)


def test_half_is_mixup_and_half_cutmix(mixed):
    for rows in mixed:
        assert_share(rows[:, 0], .5)


@pytest.mark.parametrize('mixup, alpha', [(True, .8), (False, 1.)])
def test_lambdas_are_timms(mixed, mixup, alpha):
    ours, theirs = (rows[rows[:, 0] == mixup, 1:].T for rows in mixed)
    assert_same_distribution(ours[0], theirs[0])
    for lam, raw, a, b in ours, theirs:
        assert set(a) == set(b) == {alpha}
        # The variance of Beta(alpha, alpha), within four deviations.
        squares = (raw - .5)**2
        assert abs(squares.mean() - 1 / (8 * alpha + 4)) \
            < 4 * squares.std() / math.sqrt(len(raw))
        if mixup:
            np.testing.assert_allclose(lam, raw, atol=1e-6)
        else:
            # Of the area pasted, less than was drawn where the border cuts
            # the box or its side was no whole number. A box of odd sides is
            # a pixel smaller, as in the reference's timm 0.3.2; later ones
            # keep it whole. On 224 x 224, lambda is 0.0015 higher.
            assert np.all(lam > raw - 1e-6)
            assert np.mean(lam - raw) > .05


# Random erasing


def erased(call, n=16, size=500, side=64):
    """The boxes' heights and widths, their pixels, and of how many images."""
    boxes, pixels = [], []
    for _ in range(n):
        images, grey = call(size, side)
        masks = (images != grey).any(1)
        for image, mask in zip(images, masks):
            if mask.any():
                rows, = mask.any(1).nonzero(as_tuple=True)
                columns, = mask.any(0).nonzero(as_tuple=True)
                assert mask.sum() == len(rows) * len(columns)  # one box
                boxes.append([len(rows), len(columns)])
                pixels.append(image[:, mask])
    return np.array(boxes), torch.cat(pixels, 1), n * size


def grey_batch(size, side):
    return torch.full((size, 3, side, side), 128, dtype=torch.uint8)


def preprocess(cfg, batch, training=True, **kwargs):
    samples = [DataSample().set_gt_label(0) for _ in batch]
    data = dict(inputs=batch, data_samples=samples)
    return preprocessor(cfg, **kwargs)(data, training)['inputs']


@pytest.fixture(scope='module')
def boxes(cfg):
    seed_all()
    peer = RandomErasing(.25, mode='pixel', device='cpu')
    grey = preprocess(cfg, grey_batch(1, 1), training=False)

    def ours(size, side):
        return preprocess(
            cfg, grey_batch(size, side), batch_augments=None), grey

    def theirs(size, side):
        return peer(grey.repeat(size, 1, side, side)), grey

    return erased(ours), erased(theirs)


def test_erased_boxes_are_timms(boxes):
    (ours, _, n), (theirs, _, _) = boxes
    assert_share(np.arange(n) < len(ours), .25)
    assert_same_distribution(ours.prod(1), theirs.prod(1))
    assert_same_distribution(ours[:, 0] / ours[:, 1],
                             theirs[:, 0] / theirs[:, 1])
    area = ours.prod(1) / 64**2
    # Sides are whole numbers, which moves the ends a little.
    assert .017 < area.min() < .024 and .32 < area.max() < .35
    ratio = np.log(ours[:, 0] / ours[:, 1]) / math.log(.3)
    assert .95 < ratio.max() < 1.15 and .95 < -ratio.min() < 1.15


def test_erased_pixels_are_normal(boxes, cfg):
    (_, pixels, _), (_, peer, _) = boxes
    assert_same_distribution(pixels[:, ::9].flatten(), peer[:, ::9].flatten())
    assert abs(pixels.mean()) < .01 and abs(pixels.std() - 1) < .01
    # Each channel and pixel has its own, and a pixel's range is no limit.
    correlation = torch.corrcoef(torch.cat([pixels[:, 1:], pixels[:, :-1]]))
    assert (correlation - torch.eye(6)).abs().max() < .01
    ends = [preprocess(cfg, grey_batch(1, 1) * 0 + v, training=False)
            for v in (0, 255)]
    assert (pixels < min(e.min() for e in ends)).float().mean() > .01
    assert (pixels > max(e.max() for e in ends)).float().mean() > .001


def test_nothing_is_erased_or_mixed_in_evaluation(cfg):
    out = preprocess(cfg, grey_batch(100, 32), training=False)
    assert (out == out[:1, :, :1, :1]).all()


def test_erasing_comes_before_mixing(cfg):
    seen = []

    def mix(images, scores):
        seen.append(images.clone())
        return images * 0, scores

    out = preprocess(
        cfg, grey_batch(400, 32), batch_augments=dict(augments=mix))
    assert (out == 0).all()
    grey = preprocess(cfg, grey_batch(1, 1), training=False)
    changed = (seen[0] != grey).flatten(1).any(1)
    assert_share(changed.numpy(), .25)
