"""The loader of training images, beside Pillow, torchvision and mmpretrain."""

import io
import logging
import os.path as osp
import pickle

import numpy as np
import pytest
import torch
from conftest import DATASETS
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import Compose
from mmengine.config import Config
from mmpretrain.datasets.transforms import ResizeEdge
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import RandomResizedCrop

from deit_plugin.datasets import LoadRandomResizedCrop, ReverseChannels, TorchResizeEdge, jpeg, transforms

pytestmark = pytest.mark.usefixtures('quick')
CONFIG = osp.join(osp.dirname(__file__), '../../configs/_base_/imagenet_224.py')
DECODERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            name == 'simplejpeg' and jpeg.simplejpeg is None,
            reason='simplejpeg is not installed',
        ),
    )
    for name in jpeg.DECODERS
]
BOX = 17, 31, 141, 103


def photo(width=233, height=175, mode='RGB'):
    image = Image.fromarray(load_sample_image('china.jpg'))
    return image.resize((width, height), Image.BICUBIC).convert(mode)


def encode(image, format='JPEG', **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, format, **kwargs)
    return buffer.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data)).convert('RGB')


def expected(image, box, size):
    """Pillow's crop and resize, (H, W, 3) uint8 RGB; horizontal pass first,
    which Pillow 13 would decide by the shape."""
    top, left, height, width = box
    crop = image.crop((left, top, left + width, top + height))
    wide = crop.resize((size[1], height), Image.BICUBIC)
    return np.asarray(wide.resize((size[1], size[0]), Image.BICUBIC))


def fixed(box, **kwargs):
    """A transform which crops there and does not flip."""
    transform = LoadRandomResizedCrop(**{'flip_prob': 0, **kwargs})
    transform.crop_box = lambda height, width: box
    return transform


def load(transform, data, folder):
    path = folder / 'image'
    path.write_bytes(data)
    return transform(dict(img_path=str(path)))


def distance(image, other):
    return np.abs(np.int16(image) - np.int16(other))


def with_exif(image):
    exif = Image.Exif()
    exif[0x112] = 6  # lies on its side
    return encode(image, exif=exif)


FILES = dict(
    jpeg=lambda: encode(photo()),
    fine=lambda: encode(photo(), subsampling=0, quality=95),
    halved=lambda: encode(photo(), subsampling=1),
    progressive=lambda: encode(photo(), progressive=True),
    restarts=lambda: encode(photo(), restart_marker_rows=1),
    stored_rgb=lambda: encode(photo(), keep_rgb=True),
    grey=lambda: encode(photo(mode='L')),
    rotated=lambda: with_exif(photo()),
    trailing=lambda: encode(photo()) + bytes(99),
    cmyk=lambda: encode(photo(mode='CMYK')),
    png=lambda: encode(photo(), 'PNG'),
    alpha=lambda: encode(Image.merge('RGBA', [*photo().split(), photo(mode='L')]), 'PNG'),
    palette=lambda: encode(photo(mode='P'), 'PNG'),
    gif=lambda: encode(photo(), 'GIF'),
    webp=lambda: encode(photo(), 'WEBP'),
)


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('name', FILES)
def test_every_format_is_pillows_crop_and_resize(name, decoder, tmp_path):
    data = FILES[name]()
    for size in ((32, 32), (57, 91), (224, 224)):
        transform = fixed(BOX, scale=size, decoder=decoder)
        results = load(transform, data, tmp_path)
        far = distance(results['img'][..., ::-1], expected(opened(data), BOX, size))
        # One level; a palette has edges so hard that it is two once or twice.
        assert far.max() <= 1 + (name == 'palette')
        assert (far > 0).mean() < 0.02 and (far > 1).sum() < 5
        assert results['img'].dtype == np.uint8
        assert results['ori_shape'] == (175, 233)


@pytest.mark.parametrize('flip_prob', [0, 1])
def test_images_in_memory(flip_prob, tmp_path):
    """As from a file with the same pixels, of which each channel differs."""
    image = photo()
    pixels = np.array(image)[..., ::-1]
    before = pixels.copy()
    # In rows of memory, and as a view of an image in RGB.
    for array in (before.copy(), pixels):
        for size in ((57, 91), (224, 224)):
            transform = fixed(BOX, scale=size, flip_prob=flip_prob)
            expected = load(transform, encode(image, 'PNG'), tmp_path)
            results = transform(dict(img=array, img_path=None, gt_label=3))
            assert np.array_equal(results['img'], expected['img'])
            for key in ('img_shape', 'ori_shape', 'flip', 'flip_direction'):
                assert results[key] == expected[key]
            assert results['gt_label'] == 3
        assert np.array_equal(array, before)  # the dataset keeps it
    blue = np.zeros((8, 8, 3), np.uint8)
    blue[..., 0] = 255  # in BGR
    results = LoadRandomResizedCrop(scale=16)(dict(img=blue))
    assert (results['img'] == (255, 0, 0)).all()


def test_rare_values_differ_by_two_levels():
    generator = np.random.RandomState(0)
    counts = np.zeros(256, int)
    for _ in range(40):
        height, width = generator.randint(60, 400, 2)
        image = generator.randint(0, 256, (height, width, 3), dtype=np.uint8)
        result = jpeg.resize(image, (224, 224)).permute(1, 2, 0)
        whole = 0, 0, height, width
        far = distance(result, expected(Image.fromarray(image), whole, (224, 224)))
        counts += np.bincount(far.ravel(), minlength=256)
    assert counts[1:].sum() < 0.01 * counts.sum()
    assert counts[2:].sum() < 1e-4 * counts.sum() and not counts[3:].any()


def test_resize_without_vector_instructions_is_pillows(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'DEFAULT')
    image = np.array(photo())
    result = jpeg.resize(image, (64, 48)).permute(1, 2, 0)
    assert np.array_equal(result, expected(photo(), (0, 0, 175, 233), (64, 48)))


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize(
    'name', ['jpeg', 'fine', 'halved', 'progressive', 'restarts', 'stored_rgb', 'grey', 'rotated']
)
def test_decoders_give_pillows_values(name, decoder):
    data = FILES[name]()
    header = jpeg.read_header(data)
    whole = np.asarray(opened(data))
    decode = jpeg.DECODERS[decoder]
    assert header[:2] == (175, 233)
    if (name, decoder) == ('restarts', 'opencv'):  # a marker, so Pillow reads it
        with pytest.raises(ValueError, match='ffd0 in its scan'):
            decode(data, header)
        return
    assert np.array_equal(decode(data, header), whole)
    for bottom in (1, 15, 16, 17, 40, 99, 174, 175):
        part = decode(data, header, bottom)
        assert np.array_equal(part[:bottom], whole[:bottom])


@pytest.mark.skipif(jpeg.simplejpeg is None, reason='simplejpeg is not installed')
def test_rows_below_the_crop_are_not_decoded():
    data = FILES['jpeg']()
    header = jpeg.read_header(data)
    assert len(jpeg.decode_simplejpeg(data, header, 40)) == 41
    data = FILES['progressive']()
    header = jpeg.read_header(data)
    assert len(jpeg.decode_simplejpeg(data, header, 40)) == 175


def test_rows_are_left_out_of_one_scan_only():
    data = FILES['jpeg']()
    start = data.find(b'\xff\xda')
    assert jpeg.read_header(data).sequential
    several = data[: start + 4] + b'\1' + data[start + 5 :]
    assert not jpeg.read_header(several).sequential
    assert not jpeg.read_header(FILES['progressive']()).sequential
    assert jpeg.read_header(FILES['grey']()).sequential


@pytest.mark.parametrize('name', FILES)
def test_only_plain_jpegs_have_a_header(name):
    plain = name not in ('cmyk', 'png', 'alpha', 'palette', 'gif', 'webp')
    assert (jpeg.read_header(FILES[name]()) is not None) == plain


def test_crops_are_drawn_as_torchvisions():
    """Means and spreads of 3000 boxes agree to four standard errors."""
    np.random.seed(0)
    transform = LoadRandomResizedCrop(decoder='pillow')
    for height, width in ((375, 500), (500, 333), (100, 190)):
        image = torch.empty(3, height, width)
        ours, theirs = (
            np.array([draw() for _ in range(3000)], float)
            for draw in (
                lambda: transform.crop_box(height, width),
                lambda: RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]),
            )
        )
        for boxes in (ours, theirs):
            assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] > 0).all()
            assert (boxes[:, :2] + boxes[:, 2:] <= (height, width)).all()

        def features(boxes):
            top, left, h, w = boxes.T
            return np.stack([top, left, h, w, h * w, np.log(w / h), top**2, left**2])

        ours, theirs = features(ours), features(theirs)
        error = np.sqrt((ours.var(1) + theirs.var(1)) / 3000)
        assert (np.abs(ours.mean(1) - theirs.mean(1)) < 4 * error).all()
        ratio = ours.std(1) / theirs.std(1)
        assert (np.abs(ratio - 1) < 0.1).all()


@settings(max_examples=50, deadline=None)
@given(data=st.data(), height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_a_crop_is_within_the_image(data, height, width):
    area, ratio = (
        tuple(sorted(data.draw(st.tuples(bounds, bounds))))
        for bounds in (st.floats(1e-4, 1), st.floats(0.01, 100))
    )
    np.random.seed(data.draw(st.integers(0, 2**32 - 1)))
    top, left, h, w = LoadRandomResizedCrop(
        crop_ratio_range=area, aspect_ratio_range=ratio, decoder='pillow'
    ).crop_box(height, width)
    assert 0 <= top < top + h <= height
    assert 0 <= left < left + w <= width


def test_crop_falls_back_to_the_centre():
    transform = LoadRandomResizedCrop(decoder='pillow')
    for height, width in ((10, 1000), (1000, 10), (1, 1), (1, 90), (2, 1)):
        boxes = {transform.crop_box(height, width) for _ in range(60)}
        theirs = RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
        assert boxes == {theirs} if max(height, width) > 2 else all(min(box[2:]) > 0 for box in boxes)


def test_flip(tmp_path):
    np.random.seed(0)
    data = encode(photo())
    plain = load(fixed(BOX, flip_prob=0), data, tmp_path)
    mirrored = load(fixed(BOX, flip_prob=1), data, tmp_path)
    assert np.array_equal(plain['img'][:, ::-1], mirrored['img'])
    assert (plain['flip'], plain['flip_direction']) == (False, None)
    assert (mirrored['flip'], mirrored['flip_direction']) == (True, 'horizontal')
    transform = fixed(BOX, flip_prob=0.25, scale=8)
    flips = [load(transform, data, tmp_path)['flip'] for _ in range(400)]
    assert 60 < sum(flips) < 140


def test_numpys_seed_decides(tmp_path):
    data = encode(photo())
    transform = LoadRandomResizedCrop(scale=32)

    def draw(seed):
        np.random.seed(seed)
        return np.stack([load(transform, data, tmp_path)['img'] for _ in range(4)])

    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def broken_files():
    whole, png = encode(photo()), encode(photo(), 'PNG')
    at = jpeg.read_header(whole).height_at
    progressive = encode(photo(), progressive=True)
    thumbnail = b'\xff\xe5' + (len(whole) + 2).to_bytes(2, 'big') + whole
    return dict(
        empty=b'',
        text=b'no image at all' * 99,
        huge=whole[:at] + b'\xff\x00\xff\x00' + whole[at + 4 :],
        start=whole[:2],
        header=whole[:300],
        half=whole[: len(whole) // 2],
        end=whole[:-2],
        last=whole[:-1],
        progressive=progressive[: len(progressive) * 3 // 4],
        png=png[: len(png) // 2],
        thumbnail=whole[:2] + thumbnail + whole[2 : len(whole) // 2],
    )


@pytest.mark.parametrize('decoder', DECODERS)
@pytest.mark.parametrize('name', broken_files())
def test_broken_images(name, decoder, tmp_path, monkeypatch):
    data = broken_files()[name]
    raising = LoadRandomResizedCrop(decoder=decoder)
    with pytest.raises(OSError) as caught:
        load(raising, data, tmp_path)
    message = str(caught.value)
    assert repr(str(tmp_path / 'image')) in message
    assert '\n' not in message and not message.endswith(': ')

    lines = []
    monkeypatch.setattr(
        transforms, 'print_log', lambda message, logger, level: lines.append((message, level))
    )
    resampling = LoadRandomResizedCrop(decoder=decoder, broken='resample')
    assert load(resampling, data, tmp_path) is None
    assert load(resampling, data, tmp_path) is None
    assert resampling.num_broken == 2
    assert lines == [
        (f'{message}. Another one is taken; {i} broken so far in this process', logging.WARNING)
        for i in (1, 2)
    ]
    assert load(resampling, encode(photo()), tmp_path) is not None
    assert resampling.num_broken == 2


@pytest.mark.parametrize('decoder', DECODERS)
def test_damage_that_pillow_accepts_is_accepted(decoder, tmp_path):
    data = bytearray(encode(photo(), quality=90))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    result = load(LoadRandomResizedCrop(decoder=decoder), bytes(data), tmp_path)
    assert opened(bytes(data)) and result is not None


def test_broken_names_the_reason():
    assert jpeg.describe_broken('a.jpg', ValueError('two\n lines')) == (
        "The image 'a.jpg' is broken: two lines"
    )
    assert jpeg.describe_broken('a.jpg', EOFError()).endswith('EOFError')


@pytest.mark.parametrize('broken', ['raise', 'resample'])
def test_missing_file_is_raised(broken, tmp_path):
    transform = LoadRandomResizedCrop(broken=broken)
    with pytest.raises(FileNotFoundError, match='absent.jpg'):
        transform(dict(img_path=str(tmp_path / 'absent.jpg')))
    assert transform.num_broken == 0


def test_without_simplejpeg_opencv_decodes(tmp_path, monkeypatch):
    decode, seen = jpeg.decode_opencv, []
    monkeypatch.setitem(jpeg.DECODERS, 'opencv', lambda *args: seen.append(1) or decode(*args))
    monkeypatch.setattr(jpeg, 'simplejpeg', None)
    transform = LoadRandomResizedCrop()
    load(transform, encode(photo()), tmp_path)
    assert transform.decoder == 'opencv' and seen == [1]
    with pytest.raises(ModuleNotFoundError, match='pip install simplejpeg'):
        LoadRandomResizedCrop(decoder='simplejpeg')


@pytest.mark.skipif(jpeg.simplejpeg is None, reason='simplejpeg is not installed')
def test_auto_is_simplejpeg(tmp_path, monkeypatch):
    decode, seen = jpeg.decode_simplejpeg, []
    monkeypatch.setitem(jpeg.DECODERS, 'simplejpeg', lambda *args: seen.append(args[2]) or decode(*args))
    transform = fixed(BOX)
    assert transform.decoder == 'simplejpeg'
    load(transform, encode(photo()), tmp_path)
    assert seen == [BOX[0] + BOX[2]]  # the rows that the crop needs


def test_keys_are_those_of_mmpretrains_pipeline(tmp_path):
    path = tmp_path / 'image.jpg'
    path.write_bytes(encode(photo()))
    ours = Config.fromfile(CONFIG).train_pipeline
    assert ours[0].type == 'LoadRandomResizedCrop'
    ours[0].flip_prob = 1
    theirs = [
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=224),
        dict(type='RandomFlip', prob=1.0),
        *ours[1:],
    ]
    packed = []
    for cfgs in (theirs, ours):
        pipeline = Compose([TRANSFORMS.build(cfg) for cfg in cfgs])
        pipeline = pickle.loads(pickle.dumps(pipeline))
        packed.append(pipeline(dict(img_path=str(path), gt_label=3)))
    theirs, ours = packed
    assert ours['inputs'].dtype == theirs['inputs'].dtype == torch.uint8
    assert ours['inputs'].shape == theirs['inputs'].shape == (3, 224, 224)
    assert ours['data_samples'].metainfo == theirs['data_samples'].metainfo
    assert ours['data_samples'].gt_label == 3


def test_packing_does_not_copy(tmp_path):
    pack = TRANSFORMS.build(dict(type='PackInputs'))
    for prob in (0, 1):
        results = load(fixed(BOX, flip_prob=prob), encode(photo()), tmp_path)
        image = results['img']
        packed = pack(results)['inputs']
        assert packed.data_ptr() == image.ctypes.data
        assert packed.is_contiguous()
        assert np.array_equal(packed.permute(1, 2, 0), image)


def test_dataset_takes_another_sample(tmp_path):
    for i in range(4):
        (tmp_path / str(i)).mkdir()
        for j in range(2):
            grey = Image.new('L', (40, 30), 10 * i)
            (tmp_path / str(i) / f'{j}.jpg').write_bytes(encode(grey))
    (tmp_path / '2' / '0.jpg').write_bytes(b'')
    cfg = dict(
        type='CustomDataset',
        data_root=str(tmp_path),
        pipeline=[
            dict(type='LoadRandomResizedCrop', scale=16, broken='resample'),
            dict(type='PackInputs'),
        ],
    )
    dataset = DATASETS.build(cfg)
    samples = [dataset[i] for i in range(8)]
    for sample in samples:
        label = sample['data_samples'].gt_label.item()
        assert (sample['inputs'] == 10 * label).all()
    assert dataset.pipeline.transforms[0].num_broken >= 1
    assert not samples[4]['data_samples'].img_path.endswith('2/0.jpg')

    cfg['pipeline'][0]['broken'] = 'raise'
    with pytest.raises(OSError, match='the file is empty'):
        DATASETS.build(cfg)[4]


@pytest.mark.parametrize(
    'name, value',
    [
        ('scale', 0),
        ('scale', (224, 224, 3)),
        ('scale', (224.0, 224.0)),
        ('crop_ratio_range', (0, 1)),
        ('crop_ratio_range', (0.5, 1.5)),
        ('crop_ratio_range', (0.5, 0.4)),
        ('aspect_ratio_range', (2, 1)),
        ('aspect_ratio_range', (1,)),
        ('flip_prob', 1.5),
        ('decoder', 'libjpeg'),
        ('broken', 'ignore'),
    ],
)
def test_wrong_arguments_are_quoted(name, value):
    with pytest.raises(ValueError) as caught:
        LoadRandomResizedCrop(**{name: value})
    assert f'{name}={value!r}' in str(caught.value)


def test_channels_are_reversed():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    once = ReverseChannels()(dict(img=image, gt_label=1))
    assert (once['img'][0, 0] == (2, 1, 0)).all() and once['gt_label'] == 1
    assert np.array_equal(ReverseChannels()(once)['img'], image)


def damaged(data, generator, kind):
    """A JPEG damaged within its scan."""
    scan = data.rfind(b'\xff\xda') + 20
    at = int(generator.integers(scan, len(data) - 4))
    changed = bytearray(data)
    if kind == 'cut':
        return bytes(changed[:at] + b'\xff\xd9')
    if kind == 'marker':
        changed[at : at + 2] = bytes([0xFF, int(generator.integers(1, 255))])
    for place in generator.integers(scan, len(data) - 2, 9) if kind == 'noise' else ():
        changed[place] = generator.integers(256)
    return bytes(changed)


@pytest.mark.parametrize('decoder', ['simplejpeg', 'opencv', 'pillow'])
@pytest.mark.parametrize('kind', ['cut', 'marker', 'noise'])
def test_what_is_broken_is_what_pillow_calls_broken(kind, decoder, tmp_path):
    """Wherever the crop is; and what Pillow takes has Pillow's values."""
    generator, found = np.random.default_rng(1), set()
    for _ in range(30):
        data = damaged(encode(photo(96, 64), quality=80), generator, kind)
        box = 0, 0, int(generator.integers(20, 64)), 96
        transform = fixed(box, decoder=decoder)
        try:
            whole = opened(data)
        except OSError:
            found.add('broken')
            with pytest.raises(OSError, match='is broken'):
                load(transform, data, tmp_path)
        else:
            found.add('sound')
            crop, _ = transform._decode_crop(data)
            assert np.array_equal(crop, np.asarray(whole)[: box[2]])
    assert found == dict(cut={'sound'}, marker={'sound', 'broken'}, noise={'sound', 'broken'})[kind]


def test_an_image_of_one_colour_is_not_broken(tmp_path):
    results = load(fixed((0, 0, 64, 96), scale=32), encode(Image.new('RGB', (96, 64), 'teal')), tmp_path)
    assert (results['img'] == results['img'][0, 0]).all()


@pytest.mark.parametrize('edge', ['short', 'long', 'width', 'height'])
def test_an_edge_is_resized_as_by_mmpretrain(edge):
    image = np.asarray(photo())[..., ::-1]
    given = dict(scale=120, edge=edge)
    own = TorchResizeEdge(**given)(dict(img=image))
    other = ResizeEdge(**given, backend='pillow', interpolation='bicubic')(dict(img=image))
    assert own.keys() == other.keys()
    for name in own.keys() - {'img'}:
        assert own[name] == pytest.approx(other[name]), name
    assert own['img'].shape == other['img'].shape and own['img'].dtype == np.uint8
    # Pillow 13 begins with the pass that is quicker.
    assert distance(own['img'], other['img']).max() <= 2
    assert (distance(own['img'], other['img']) > 0).mean() < 0.02
