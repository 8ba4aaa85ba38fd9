"""Images are prepared as transformers, timm and torchvision prepare them."""

import copy
import json
import logging
import os.path as osp
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.engine import SwitchRecipeHook
from mmpretrain.registry import MODELS, TRANSFORMS
from mmpretrain.structures import DataSample
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.data import create_transform
from torchvision import transforms

pytestmark = pytest.mark.usefixtures('quick')
CONFIGS = osp.join(osp.dirname(osp.abspath(__file__)), '..', '..', 'configs')
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = dict(image_mean=MEAN, image_std=STD)
DEIT = dict(image_processor_type='DeiTImageProcessor')
PROCESSORS = dict(
    default=DEIT,
    nothing=dict(),
    imagenet=dict(**DEIT, **IMAGENET),
    at_384=dict(
        image_processor_type='DeiTImageProcessorFast',
        size=dict(height=438, width=438),
        crop_size=dict(height=384, width=384),
        do_pad=None,
        data_format='channels_first',
        **IMAGENET,
    ),
    old=dict(
        feature_extractor_type='DeiTFeatureExtractor',
        size=256,
        crop_size=224,
        do_resize=True,
        do_center_crop=True,
        do_normalize=True,
        resample=3,
        **IMAGENET,
    ),
    oblong=dict(**DEIT, size=dict(height=61, width=100), crop_size=dict(height=48, width=33), resample=2),
    shortest_edge=dict(**DEIT, size=dict(shortest_edge=75), crop_size=dict(height=64, width=64)),
    not_normalised=dict(**DEIT, do_normalize=False),
    other_scale=dict(**DEIT, rescale_factor=1 / 127.5, image_mean=[1.0] * 3),
    not_resized=dict(**DEIT, do_resize=False, crop_size=dict(height=80, width=66)),
    not_cropped=dict(**DEIT, do_center_crop=False),
    nulls=dict(**DEIT, do_center_crop=None, do_normalize=None, crop_size=None),
    large_crop=dict(**DEIT, size=dict(height=40, width=52), crop_size=dict(height=64, width=64)),
    odd_crop=dict(**DEIT, size=dict(height=40, width=51), crop_size=dict(height=45, width=64)),
    vit=dict(image_processor_type='ViTImageProcessor'),
    vit_of_none=dict(image_processor_type='ViTImageProcessorFast', crop_size=None, do_center_crop=None),
    vit_old=dict(feature_extractor_type='ViTFeatureExtractor', size=384),
)
SIZES = [
    (1, 1),
    (3, 2),
    (1, 57),
    (320, 13),
    (13, 320),
    (2, 500),
    (500, 3),
    (255, 256),
    (257, 255),
    (224, 224),
    (256, 256),
    (300, 225),
    (225, 300),
    (301, 77),
    (101, 333),
    (97, 89),
    (439, 438),
    (31, 33),
    (400, 266),
    (64, 64),
]
MODES = 'RGB', 'L', 'RGBA', 'P', 'CMYK'


def write(folder, processor):
    folder.mkdir(exist_ok=True)
    path = folder / 'preprocessor_config.json'
    path.write_text(json.dumps(processor))
    return path


def photo(size, second=False):
    found = load_sample_images().images[second]
    return Image.fromarray(found).resize(size, Image.Resampling.LANCZOS)


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A file of each size, every third one of noise."""
    folder, generator = tmp_path_factory.mktemp('images'), np.random
    paths = []
    for i, size in enumerate(SIZES):
        image = photo(size, i % 2)
        if i % 3 == 2:
            noise = generator.default_rng(i).integers(0, 256, (*size, 3))
            image = Image.fromarray(noise.astype(np.uint8).swapaxes(0, 1))
        mode = MODES[i % len(MODES)]
        image = image.convert(mode)
        if mode == 'RGBA':
            image.putalpha(image.convert('L'))
        suffix = 'png' if mode != 'CMYK' and i % 4 else 'tif'
        if mode == 'CMYK' or (mode in 'RGB' and i % 4 == 0):
            suffix = 'jpg'
        paths.append(folder / f'{i}.{suffix}')
        image.save(paths[-1])
        with Image.open(paths[-1]) as saved:
            assert saved.mode == mode and saved.size == size
    return paths


@lru_cache
def read_cfg(name):
    return Config.fromfile(osp.join(CONFIGS, f'{name}.py'))


def load_cfg(name):
    return copy.deepcopy(read_cfg(name))


def make(pipeline, preprocessor):
    """From the path of an image to the input of the model."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(t) for t in pipeline])
        preprocessor = MODELS.build(dict(preprocessor))

    def prepare(path):
        packed = pipeline(dict(img_path=str(path), gt_label=0))
        return preprocessor(default_collate([packed]))['inputs'][0]

    return prepare


def ours(path):
    cfg = load_cfg('deit_tiny')
    load = cfg.test_dataloader.dataset.pipeline[0]
    assert load.type == 'LoadImage'
    processor = dict(type='DeiTImageProcessor', path=str(path))
    preprocessor = dict(cfg.data_preprocessor, normalized_input=True)
    return make([load, processor, dict(type='PackInputs')], preprocessor)


def peers(path):
    """transformers' processors: on Pillow, as the published checkpoints were
    made with, and on torchvision, if there."""
    kind = 'ViT' if 'ViT' in path.read_text() else 'DeiT'
    names = [f'{kind}ImageProcessor{s}' for s in ('Pil', '', 'Fast')]
    found = [getattr(transformers, name) for name in names if hasattr(transformers, name)]
    return [peer.from_pretrained(path.parent) for peer in found]


def theirs(peer, path):
    with Image.open(path) as image:
        pixels = peer(image.convert('RGB'), return_tensors='pt')
    return pixels['pixel_values'][0]


def levels(ours, theirs, peer):
    """Differences in levels of 255, a bit less."""
    assert ours.shape == theirs.shape and ours.dtype == torch.float32
    level = peer.rescale_factor
    if peer.do_normalize:
        level = level / torch.tensor(peer.image_std)[:, None, None]
    return ((ours - theirs).abs() - 1e-5) / level


@pytest.mark.parametrize('name', [n for n in PROCESSORS if n != 'odd_crop'])
def test_values_are_transformers_on_pillow(files, tmp_path, name):
    path = write(tmp_path, PROCESSORS[name])
    peer, prepare = peers(path)[0], ours(tmp_path)
    # How odd borders are shared out is another matter, see below.
    images = files[7:13] if name == 'not_resized' else files
    for image in images:
        difference = levels(prepare(image), theirs(peer, image), peer)
        assert difference.max() <= 1, image


@pytest.mark.parametrize(
    'name',
    [
        'default',
        'imagenet',
        'at_384',
        'old',
        'oblong',
        'large_crop',
        'odd_crop',
        'not_resized',
        'vit',
    ],
)
def test_values_are_transformers_on_torchvision(tmp_path, name):
    """torchvision's bicubic does not round between rows and columns, so it is
    off by more than a level at a few sharp edges. A border of an odd number
    of pixels it shares out otherwise than Pillow's processor."""
    path = write(tmp_path, PROCESSORS[name])
    peer, prepare = peers(path)[-1], ours(path)
    for i, size in enumerate([(640, 427), (427, 640), (333, 250), (79, 65)]):
        image = tmp_path / f'{i}.png'
        photo(size, i % 2).save(image)
        difference = levels(prepare(image), theirs(peer, image), peer)
        assert (difference <= 1).float().mean() > 0.999, size


def test_mean_and_std_are_read(tmp_path):
    Image.new('RGB', (50, 40), (51, 102, 204)).save(tmp_path / 'image.png')
    for i, (mean, std) in enumerate([(MEAN, STD), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))]):
        folder = tmp_path / str(i)
        write(folder, dict(**DEIT, image_mean=mean, image_std=std))
        pixels = ours(folder)(tmp_path / 'image.png')
        for channel, value in enumerate((0.2, 0.4, 0.8)):
            expected = (value - mean[channel]) / std[channel]
            assert pixels[channel].numpy() == pytest.approx(expected, abs=1e-5)


def test_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / 'preprocessor_config.json'):
        with pytest.raises(FileNotFoundError, match='the folder in which it'):
            ours(path)


@pytest.mark.parametrize('key', ['image_processor_type', 'feature_extractor_type'])
def test_other_processor(tmp_path, key):
    write(tmp_path, {key: 'CLIPImageProcessor'})
    with pytest.raises(ValueError, match='of a CLIPImageProcessor: only DeiT and ViT'):
        ours(tmp_path)


def build_preprocessor(**kwargs):
    cfg = load_cfg('deit_tiny').data_preprocessor
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(dict(cfg, **kwargs))


def some_bytes():
    return torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)


def normalise(images):
    """Of BGR in bytes, as the reference does it."""
    return transforms.Normalize(MEAN, STD)(images.flip(1) / 255.0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize('training', [False, True])
def test_floats_are_refused(dtype, training):
    """Whatever values they have, in one tensor and one by one as pseudo_collate has them."""
    preprocessor, images = build_preprocessor(), some_bytes()
    for floats in (images.to(dtype), normalise(images).to(dtype)):
        for given in (floats, list(floats)):
            with pytest.raises(ValueError, match='uint8.*to_float32.*normalized_input=True.*in RGB'):
                preprocessor(dict(inputs=given), training=training)


def test_normalised_floats_are_left_as_they_are():
    preprocessor = build_preprocessor(normalized_input=True)
    for floats in (normalise(some_bytes()), some_bytes().float()):
        for given in (floats, list(floats)):
            assert torch.equal(preprocessor(dict(inputs=given))['inputs'], floats)


@pytest.mark.parametrize('normalized_input', [False, True])
def test_bytes_are_normalised_whatever_came_before(normalized_input):
    preprocessor = build_preprocessor(normalized_input=normalized_input)
    for _ in range(2):
        images = some_bytes()
        for given in (images, list(images)):
            got = preprocessor(dict(inputs=given))['inputs']
            torch.testing.assert_close(got, normalise(images), atol=1e-5, rtol=0)
        if normalized_input:
            preprocessor(dict(inputs=normalise(images)))


def test_training_erases_in_normalised_images():
    preprocessor = build_preprocessor(erasing=1.0, normalized_input=True)
    images = torch.zeros(2, 3, 32, 32)
    erased = preprocessor(dict(inputs=images), training=True)['inputs']
    share = (erased != 0).float().mean()
    assert 0 < share < 0.5 and erased[erased != 0].std() > 0.5


def test_training_mixes_normalised_images():
    """After erasing, and with their labels, as those that are normalised here."""
    mixing = dict(augments=[dict(type='Mixup', alpha=0.8)])
    preprocessor = build_preprocessor(
        erasing=1.0, normalized_input=True, batch_augments=mixing, num_classes=8
    )
    classes = torch.arange(8.0)  # each image is its class
    images = classes[:, None, None, None].expand(8, 3, 32, 32)
    samples = [DataSample().set_gt_label(i) for i in range(8)]
    mixed = preprocessor(dict(inputs=images.clone(), data_samples=samples), training=True)
    scores = torch.stack([sample.gt_score for sample in mixed['data_samples']])
    torch.testing.assert_close(scores.sum(1), torch.ones(8))
    assert (scores < 1).all(1).sum() > 4
    expected = (scores @ classes)[:, None, None, None].expand_as(images)
    plain = torch.isclose(mixed['inputs'], expected, atol=1e-5).flatten(1).float().mean(1)
    assert ((plain > 0.2) & (plain < 1)).all()  # the rest is erased


@pytest.mark.parametrize('normalized_input', [False, True])
@pytest.mark.parametrize('before, after', [('Mixup', None), (None, 'Mixup'), ('Mixup', 'CutMix')])
def test_mixing_may_be_switched(before, after, normalized_input):
    """By mmpretrain's hook; random erasing stays, and labels are mixed from then on, or no more."""

    def recipe(name):
        return dict(augments=[dict(type=name, alpha=0.8)]) if name else None

    preprocessor = build_preprocessor(
        erasing=1.0, normalized_input=normalized_input, batch_augments=recipe(before), num_classes=8
    )
    hook = SwitchRecipeHook(schedule=[dict(action_epoch=2, batch_augments=recipe(after))])
    model = SimpleNamespace(data_preprocessor=preprocessor)
    runner = SimpleNamespace(model=model, epoch=0, logger=logging.getLogger())
    for epoch, mixing in enumerate((before, after)):
        runner.epoch = epoch
        hook.before_train_epoch(runner)
        images = torch.zeros(8, 3, 32, 32) if normalized_input else torch.full((8, 3, 32, 32), 120).byte()
        plain = preprocessor(dict(inputs=images.clone()))['inputs']
        samples = [DataSample().set_gt_label(i) for i in range(8)]
        seen = preprocessor(dict(inputs=images.clone(), data_samples=samples), training=True)
        assert (seen['inputs'] != plain).flatten(1).any(1).sum() > 2  # CutMix may cover an erased box
        scores = [sample.get('gt_score') for sample in seen['data_samples']]
        mixed = [score is not None and (score < 1).all().item() for score in scores]
        assert sum(mixed) > 2 if mixing else not any(mixed)


def timm_transform(side):
    return create_transform(side, interpolation='bicubic', mean=MEAN, std=STD, crop_pct=0.875)


def torchvision_transform(side):
    return transforms.Compose(
        [
            transforms.Resize({224: 256, 384: 438}[side], transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


@pytest.mark.parametrize('name, side', [('deit_tiny', 224), ('deit_base_384', 384)])
@pytest.mark.parametrize('peer', [timm_transform, torchvision_transform])
def test_evaluation_is_the_references(files, name, side, peer):
    cfg, peer = load_cfg(name), peer(side)
    prepare = make(cfg.test_dataloader.dataset.pipeline, cfg.data_preprocessor)
    level = 1 / 255 / torch.tensor(STD)[:, None, None]
    for path in files[7:]:
        with Image.open(path) as image:
            expected = peer(image.convert('RGB'))
        difference = (prepare(path) - expected).abs()
        assert (difference <= level + 1e-5).all(), path


def test_in_a_config(tmp_path):
    """Instead of the resizing and cropping, between loading and packing."""
    processor = write(tmp_path / 'model', PROCESSORS['default'])
    images = tmp_path / 'images' / 'class'
    images.mkdir(parents=True)
    photo((80, 60)).save(images / '0.png')
    path = tmp_path / 'mine.py'
    path.write_text(f"""
_base_ = [{osp.join(CONFIGS, 'deit_tiny.py')!r}]
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root={str(images.parent)!r},
        pipeline=[
            _base_.load,
            dict(type='DeiTImageProcessor', path={str(processor.parent)!r}),
            dict(type='PackInputs'),
        ]))
data_preprocessor = dict(normalized_input=True)
""")
    cfg = Config.fromfile(path)
    cfg.default_scope = 'mmpretrain'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        (batch,) = Runner.build_dataloader(cfg.test_dataloader)
        inputs = MODELS.build(dict(cfg.data_preprocessor))(batch)['inputs']
    peer = peers(processor)[0]
    expected = theirs(peer, images / '0.png')
    assert levels(inputs[0], expected, peer).max() <= 1


def test_other_kinds_of_size(tmp_path):
    path = tmp_path / 'preprocessor_config.json'
    path.write_text(json.dumps(dict(size=dict(longest_edge=90))))
    with pytest.raises(ValueError, match='longest_edge.*only height and'):
        TRANSFORMS.build(dict(type='DeiTImageProcessor', path=str(path)))
