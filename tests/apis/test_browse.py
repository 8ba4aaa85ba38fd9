"""`deit-plugin browse`: what it shows is what a training sees, to the bit."""

import copy
import json
import os

import cv2
import numpy as np
import pytest
import torch
from conftest import CONFIGS
from mmengine.config import Config
from mmpretrain.structures import DataSample
from PIL import Image
from trainings import PIPELINE, stop_workers, training

from deit_plugin.__main__ import main
from deit_plugin.apis.browse import browse, weighted_classes
from deit_plugin.apis.training_batches import TrainingBatches
from deit_plugin.datasets.digits import write_digits
from deit_plugin.visualization import figures

pytestmark = pytest.mark.usefixtures('quick')
DIGITS = str(CONFIGS / 'deit_digits_distilled.py')
MIXED = {'model.train_cfg.augments.type': 'CutMix', 'model.train_cfg.augments.alpha': 1.0}


def of_samples(batch):
    return [sample.to_dict() for sample in batch['data_samples']]


def assert_same(shown, trained):
    assert torch.equal(shown['inputs'], trained['inputs'])
    assert shown['inputs'].dtype == trained['inputs'].dtype == torch.float32
    for ours, theirs in zip(of_samples(shown), of_samples(trained), strict=True):
        assert ours['sample_idx'] == theirs['sample_idx'] and ours['drawn'] == theirs['drawn']
        assert torch.equal(ours['gt_label'], theirs['gt_label'])
        assert torch.equal(ours['gt_score'], theirs['gt_score'])


@pytest.mark.parametrize(
    'sampler, workers, randomness',
    [
        (dict(type='DefaultSampler', shuffle=True), 2, dict(seed=7)),
        (dict(type='RepeatedAugmentSampler', repeat=True), 0, dict(seed=0, diff_rank_seed=True)),
    ],
)
def test_it_is_what_the_model_gets(drawing_model, tmp_path, sampler, workers, randomness):
    """Inputs and targets of the first two iterations, of the first and of the second epoch."""
    runner = training(drawing_model, tmp_path / 'run', workers, sampler, randomness=randomness)
    seen = []
    runner.model.register_forward_pre_hook(
        lambda module, args, kwargs: (
            seen.append(copy.deepcopy(kwargs)) if kwargs.get('mode') == 'loss' else None
        ),
        with_kwargs=True,
    )
    runner.train()
    stop_workers(runner)
    assert len(seen) == 20
    before = torch.get_rng_state()
    for epoch in (0, 1):
        shown = TrainingBatches(runner.cfg, epoch)
        assert (shown.seed, shown.notes) == (randomness['seed'], [])
        for (iteration, batch), _ in zip(shown, range(2)):
            assert_same(batch, seen[iteration])
        assert iteration == 5 * epoch + 1
    assert torch.equal(torch.get_rng_state(), before)
    assert max(len(weighted_classes(sample, None)) for sample in batch['data_samples']) == 2


def test_another_epoch_and_seed_are_others():
    cfg = Config.fromfile(DIGITS)
    first = [next(iter(TrainingBatches(cfg, epoch)))[1]['inputs'] for epoch in (0, 0, 1)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])
    cfg.randomness.seed = 1
    assert not torch.equal(next(iter(TrainingBatches(cfg)))[1]['inputs'], first[0])


def test_command(tmp_path, monkeypatch, capsys):
    """No teacher, no weights, no backbone; nothing is written but the picture."""
    monkeypatch.chdir(tmp_path)
    options = [
        *('model.teacher.checkpoint=nowhere.pth', 'model.backbone.type=Nothing', 'load_from=nowhere.pth'),
        *(f'{key}={value}' for key, value in MIXED.items()),
    ]
    command = ['browse', DIGITS, '--images', '6', '--cfg-options', *options]
    assert main(command) == 0
    assert 'Drawn: browse.png, 6 images of 16 x 16 by the seed 0, of iteration 1' in capsys.readouterr().out
    assert os.listdir() == ['browse.png']
    assert main(command) == 2 and 'browse.png is there already' in capsys.readouterr().err
    assert main([*command, '--force']) == 0


def test_several_batches_and_too_few_images(tmp_path):
    options = {'train_dataloader.batch_size': 4, 'train_dataloader.dataset.indices': 10}
    found = browse(DIGITS, str(tmp_path / 'a.png'), 6, cfg_options=options)
    assert found['iterations'] == (0, 1) and len(found['images']) == len(found['labels']) == 6
    assert not found['notes']
    found = browse(DIGITS, str(tmp_path / 'b.png'), 50, epoch=2, cfg_options=options)
    assert found['iterations'] == (6, 8) and len(found['images']) == 10
    assert 'no more than 10 images' in found['notes'][0]


def test_digits_are_drawn_as_they_are(tmp_path):
    """Each pixel enlarged by a whole number, and the right label: of the sample, or of both."""
    path = str(tmp_path / 'a.png')
    found = browse(DIGITS, path, 4, cfg_options=MIXED)
    sheet = np.asarray(Image.open(path).convert('RGB'))
    for i, image in enumerate(found['images']):
        top, left = 6 + i // 2 * (144 + 6 + figures.LINE), 6 + i % 2 * 150
        # The edges of a pixel are drawn a bit elsewhere by older releases of matplotlib.
        assert np.array_equal(sheet[top : top + 144, left : left + 144][4::9, 4::9], image)
    batch = next(iter(TrainingBatches(mixed_digits())))[1]
    for label, sample in zip(found['labels'], batch['data_samples']):
        assert {name: weight for name, weight in label} == {
            str(i): pytest.approx(score) for i, score in enumerate(sample.gt_score.tolist()) if score
        }


def mixed_digits():
    cfg = Config.fromfile(DIGITS)
    cfg.merge_from_dict(MIXED)
    return cfg


SHADES = np.array([[[200, 100, 20], [3, 255, 0]]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)  # RGB
MEAN = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    'model, preprocessor, load',
    [
        (dict(type='ImageClassifier'), dict(to_rgb=True, **MEAN), {}),
        (dict(type='ImageClassifier'), dict(to_rgb=False, **MEAN), {}),
        (dict(type='ImageClassifier'), {}, {}),  # not normalised
        (dict(type='ImageClassifier'), dict(mean=[120.0], std=[60.0]), dict(color_type='grayscale')),
        (dict(type='TimmClassifier', model_name='nothing'), dict(to_rgb=True, **MEAN), {}),
        (dict(type='HuggingFaceClassifier', model_name='nothing'), dict(to_rgb=True, **MEAN), {}),
        (dict(type='SimMIM'), dict(to_rgb=True, **MEAN), {}),
        (
            dict(type='DistilledClassifier', teacher=dict(type='Nothing')),
            dict(type='DeiTDataPreprocessor', normalized_input=True, to_rgb=True),
            'processor',
        ),
    ],
)
def test_colours(tmp_path, model, preprocessor, load):
    """Whatever the channels and the normalisation, the picture has the colours of the file."""
    folder = tmp_path / 'images' / 'shades'
    folder.mkdir(parents=True)
    Image.fromarray(SHADES).save(folder / '0.png')
    steps = [dict(type='LoadImageFromFile', **(load if isinstance(load, dict) else {}))]
    if load == 'processor':
        (tmp_path / 'preprocessor_config.json').write_text(
            json.dumps(dict(do_resize=False, do_center_crop=False, image_mean=[0.4, 0.5, 0.6]))
        )
        steps.append(dict(type='DeiTImageProcessor', path=str(tmp_path)))
    loader = dict(
        dataset=dict(
            type='CustomDataset',
            data_root=str(tmp_path / 'images'),
            pipeline=[*steps, dict(type='PackInputs')],
        ),
        batch_size=1,
        num_workers=2,
        prefetch_factor=2,
        persistent_workers=True,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    (tmp_path / 'mine.py').write_text(
        f'model = {dict(model, backbone=dict(type="Nothing"))}\n'
        f'data_preprocessor = {preprocessor}\ntrain_dataloader = {loader}'
    )
    found = browse(str(tmp_path / 'mine.py'), str(tmp_path / 'a.png'))
    (image,), (label,) = found['images'], found['labels']
    expected = SHADES
    if load == dict(color_type='grayscale'):
        grey = cv2.imread(str(folder / '0.png'), cv2.IMREAD_GRAYSCALE)
        expected = grey[:, :, None].repeat(3, axis=2)
    assert np.array_equal(image, expected)
    assert label == [('shades', 1.0)]
    assert 'Without a SeedHook' in found['notes'][0] and 'more than 1 images' in found['notes'][1]


@pytest.mark.parametrize('kind', ['ImageClassifier', 'TimmClassifier', 'DistilledClassifier'])
def test_mixing_of_each_kind_of_model(kind):
    """As their constructors put `train_cfg` into the preprocessor."""
    cfg = mixed_digits()
    cfg.model.type = kind
    batch = next(iter(TrainingBatches(cfg)))[1]
    assert max(len(weighted_classes(sample, None)) for sample in batch['data_samples']) == 2
    cfg.model.train_cfg = None
    batch = next(iter(TrainingBatches(cfg)))[1]
    assert {len(weighted_classes(sample, None)) for sample in batch['data_samples']} == {1}


def test_own_images_without_their_teacher(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_digits('data/digits')
    config = str(CONFIGS / 'finetune' / 'digits_distilled_folder.py')
    found = browse(config, cfg_options=dict(teacher_checkpoint='not/yet'))
    assert len(found['images']) == 16 and not found['notes']
    assert {name for label in found['labels'] for name, _ in label} <= set('0123456789')
    teacher = str(CONFIGS / 'finetune' / 'digits_teacher_folder.py')
    assert browse(teacher, 'teacher.png')['images'][0].shape == (16, 16, 3)
    assert main(['browse', config, '--output', 'b.png', '--cfg-options', 'data_root=nowhere']) == 2
    assert "data_root='nowhere'" in capsys.readouterr().err
    assert sorted(os.listdir()) == ['browse.png', 'data', 'teacher.png']


def test_config_in_python_style(tmp_path):
    """With `read_base`, and without a default scope."""
    (tmp_path / 'base.py').write_text(
        'from mmengine.dataset import DefaultSampler\n'
        'from mmpretrain.models import ImageClassifier\n'
        'from deit_plugin.datasets import Digits, LoadRandomResizedCrop\n'
        'from mmpretrain.datasets import PackInputs\n'
        'from deit_plugin.engine import SeedHook\n'
        "model = dict(type=ImageClassifier, train_cfg=dict(augments=dict(type='Mixup', alpha=.8)))\n"
        'data_preprocessor = dict(num_classes=10)\n'
        'train_dataloader = dict(batch_size=4, sampler=dict(type=DefaultSampler, shuffle=True),\n'
        "    dataset=dict(type=Digits, split='train', pipeline=[\n"
        '        dict(type=LoadRandomResizedCrop, scale=16), dict(type=PackInputs)]))\n'
        'custom_hooks = [dict(type=SeedHook)]\n'
    )
    (tmp_path / 'mine.py').write_text(
        'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n'
        'train_dataloader.update(batch_size=5)\n'
    )
    found = browse(str(tmp_path / 'mine.py'), str(tmp_path / 'a.png'), 7)
    assert len(found['images']) == 7 and found['iterations'] == (0, 1)
    assert any(len(label) == 2 for label in found['labels'])
    assert 'no `randomness.seed`' in found['notes'][0]


def test_a_switch_of_the_recipe_is_said(tmp_path):
    switch = [dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=2, batch_augments=None)])]
    found = browse(DIGITS, str(tmp_path / 'a.png'), 4, cfg_options=dict(custom_hooks=switch))
    assert 'SwitchRecipeHook changes is not drawn' in found['notes'][0]


LOADER = dict(
    dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE),
    batch_size=4,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
MODEL = dict(type='ImageClassifier', backbone=dict(type='Nothing'))


@pytest.mark.parametrize(
    'cfg, epoch, message',
    [
        (dict(model=MODEL), 0, 'no train_dataloader'),
        (dict(train_dataloader=LOADER), 0, 'no model that is known'),
        (dict(model=dict(type='Nothing'), train_dataloader=LOADER), 0, "model.type='Nothing'"),
        (dict(model=MODEL, train_dataloader=LOADER, train_cfg=dict(max_epochs=3)), 3, 'must be 0 to 2'),
        (dict(model=MODEL, train_dataloader=LOADER), -1, '--epoch -1'),
        (dict(model=MODEL, train_dataloader=dict(LOADER, batch_size=50, drop_last=True)), 0, 'no iteration'),
        (dict(model=MODEL, train_dataloader=dict(LOADER, dataset=dict(type='Nil'))), 0, 'cannot be built'),
        (
            dict(model=MODEL, train_dataloader=dict(LOADER, sampler=dict(type='InfiniteSampler'))),
            1,
            'no epochs but the first',
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(cfg, epoch, message):
    with pytest.raises(ValueError, match=message):
        TrainingBatches(Config(copy.deepcopy(cfg)), epoch)


@pytest.mark.parametrize('images', [0, 401])
def test_number_of_images(images):
    with pytest.raises(ValueError, match=f'--images {images} must be 1 to 400'):
        browse(DIGITS, 'nowhere/at/all.png', images)


@pytest.mark.parametrize('option', ['foo', 'a=[1,2'])
def test_options_that_are_none(capsys, option):
    for command in ('browse', 'label'):
        with pytest.raises(SystemExit):
            main([command, DIGITS, '--cfg-options', 'model.teacher=None', option])
        assert f'{option!r} is not KEY=VALUE' in capsys.readouterr().err


def test_options_that_do_not_fit(capsys, tmp_path):
    command = [
        'browse',
        DIGITS,
        '--output',
        str(tmp_path / 'a.png'),
        '--cfg-options',
        'train_cfg.by_epoch.a=1',
    ]
    assert main(command) == 2
    assert '--cfg-options do not fit' in capsys.readouterr().err


def test_classes_of_a_sample():
    names = ['cat', 'dog']
    assert weighted_classes(DataSample().set_gt_score(torch.tensor([0.25, 0.75])), names) == [
        ('dog', 0.75),
        ('cat', 0.25),
    ]
    assert weighted_classes(DataSample().set_gt_label([0, 1]), names) == [('cat', 1.0), ('dog', 1.0)]
    assert weighted_classes(DataSample().set_gt_label(4), names) == [('4', 1.0)]
    assert weighted_classes(None, names) == []


def test_captions():
    caption = figures._caption
    assert caption([('cat', 0.7104), ('dog', 0.2896)], 144) == ['cat 0.71, dog 0.29']
    assert caption([('cat', 1.0)], 144) == ['cat']
    assert caption([], 144) == ['']
    long = [('tench, Tinca tinca', 0.5), ('goldfish, Carassius auratus', 0.5)]
    assert caption(long, 144) == ['tench 0.50, goldfish 0.50']
    assert caption(long, 100) == ['tench 0.50', 'goldfish 0.50']
    (line,) = caption([('x' * 99, 0.5)], 100)
    assert line.startswith('xxxx') and line.endswith('x… 0.50') and figures._width(line) <= 100


@pytest.mark.parametrize('number, columns', [(1, 1), (2, 2), (4, 2), (16, 4), (17, 6), (7, 4), (24, 6)])
def test_a_sheet_has_few_empty_places(number, columns):
    assert figures._columns(number) == columns


@pytest.mark.parametrize('name', ['$a$', '$a', 'two\nlines', '猫'])
def test_odd_names_are_drawn(name):
    figures.png(figures.contact_sheet([np.zeros((300, 400, 3), np.uint8)] * 2, [[(name, 1.0)], []]))
