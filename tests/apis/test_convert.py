"""Ours out to everyone, each by its own ordinary call."""

import errno
import json
import os
import subprocess
import sys

import pytest
import safetensors.torch
import timm
import torch
import transformers
from conftest import ARCH, NUM_CLASSES, make_runner, shuffle_weights
from mmengine.runner import load_checkpoint
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import MODELS
from peers import HEAD_NAMES, SIDE, answer, huggings, images, ours, timms

from deit_plugin.__main__ import main
from deit_plugin.apis.convert import convert

CLASSES = ['cat', 'dog', 'owl', 'eel', 'ant']


def save(kind, path, img_size=SIDE, **meta):
    model = shuffle_weights(ours(kind, img_size))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return model


def equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def from_timm(kind, path, img_size=SIDE):
    name = 'deit_tiny_patch16_224' if kind == 'plain' else 'deit_tiny_distilled_patch16_224'
    return timm.create_model(
        name,
        checkpoint_path=str(path),
        img_size=img_size,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=2,
        mlp_ratio=2,
        num_classes=NUM_CLASSES,
    )


def from_transformers(kind, path):
    peer, info = getattr(transformers, HEAD_NAMES[kind]).from_pretrained(path, output_loading_info=True)
    left = {k for k in info['missing_keys'] if not k.startswith('pooler.')}
    assert not left and not info['unexpected_keys']
    return peer


@pytest.mark.parametrize('kind', ['plain', 'both'])
@pytest.mark.parametrize('to', ['timm', 'facebook'])
@pytest.mark.parametrize('name', ['a.pth', 'a.bin', 'a.safetensors'])
def test_timm_loads_it(kind, to, name, tmp_path):
    model = save(kind, tmp_path / 'own.pth')
    if to == 'facebook' and name.endswith('safetensors'):
        pytest.skip("the reference's files are PyTorch's")
    convert(str(tmp_path / 'own.pth'), str(tmp_path / name), to)
    peer = from_timm(kind, tmp_path / name)
    x = images()
    torch.testing.assert_close(answer(peer, x), answer(model, x), atol=1e-4, rtol=0)
    if to == 'facebook':
        assert list(torch.load(tmp_path / name)) == ['model', 'weights_sha256']


@pytest.mark.parametrize('kind', HEAD_NAMES)
def test_transformers_loads_it(kind, tmp_path):
    model = save(kind, tmp_path / 'own.pth')
    target = tmp_path / 'deep' / 'hub'
    assert not main(
        [
            'convert',
            str(tmp_path / 'own.pth'),
            f'{target}/',
            '--to',
            'transformers',
            '--num-heads',
            '2',
        ]
    )
    peer = from_transformers(kind, target)
    if kind == 'base':
        peer.pooler = None
    x = images()
    torch.testing.assert_close(answer(peer, x), answer(model, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize('kind', ['plain', 'both'])
def test_mmpretrains_own_model_loads_it(kind, tmp_path):
    peer = timms(kind)
    torch.save(peer.state_dict(), tmp_path / 'timm.pth')
    convert(str(tmp_path / 'timm.pth'), str(tmp_path / 'a.pth'), 'mmpretrain')
    name, head = (
        ('VisionTransformer', 'VisionTransformerClsHead')
        if kind == 'plain'
        else ('DistilledVisionTransformer', 'DeiTClsHead')
    )
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type=name, arch=ARCH, img_size=SIDE, patch_size=8),
            head=dict(type=head, num_classes=NUM_CLASSES, in_channels=32),
        )
    )
    load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    x = images()
    torch.testing.assert_close(answer(model, x), answer(peer, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize('kind', HEAD_NAMES)
@pytest.mark.parametrize('to', ['facebook', 'timm', 'transformers', 'mmpretrain'])
def test_there_and_back_is_the_same_to_the_bit(kind, to, tmp_path):
    if kind == 'cls' and to in ('facebook', 'timm'):
        pytest.skip('refused, see below')
    model = save(kind, tmp_path / 'own.pth')
    there, back = str(tmp_path / 'there'), str(tmp_path / 'back.pth')
    convert(str(tmp_path / 'own.pth'), there, to, num_heads=2)
    convert(there, back, 'mmpretrain')
    expected = {
        k: v
        for k, v in model.state_dict().items()
        if to in ('transformers', 'mmpretrain') or not (k.startswith('neck') or 'mask_token' in k)
    }
    equal(torch.load(back)['state_dict'], expected)


@pytest.mark.parametrize('kind', ['plain', 'cls', 'both', 'masked'])
def test_from_transformers_and_back(kind, tmp_path):
    huggings(kind).save_pretrained(tmp_path / 'hub')
    convert(str(tmp_path / 'hub'), str(tmp_path / 'own.pth'), 'mmpretrain')
    convert(str(tmp_path / 'own.pth'), str(tmp_path / 'again'), 'transformers', num_heads=2)
    equal(
        safetensors.torch.load_file(tmp_path / 'hub' / 'model.safetensors'),
        safetensors.torch.load_file(tmp_path / 'again' / 'model.safetensors'),
    )
    config = json.loads((tmp_path / 'again' / 'config.json').read_text())
    original = json.loads((tmp_path / 'hub' / 'config.json').read_text())
    for key in config:
        if key not in ('encoder_stride',):
            assert config[key] == original[key], key


def test_from_timm_to_transformers(tmp_path):
    peer = timms('both')
    torch.save(peer.state_dict(), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    other = from_transformers('both', tmp_path / 'hub')
    x = images()
    torch.testing.assert_close(answer(other, x), answer(peer, x), atol=1e-4, rtol=0)


# --- what is beside the weights -------------------------------------------


def config_of(folder):
    return json.loads((folder / 'config.json').read_text())


def test_the_labels_go_with_it(tmp_path):
    save('both', tmp_path / 'a.pth', dataset_meta=dict(classes=CLASSES))
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    peer = from_transformers('both', tmp_path / 'hub')
    assert peer.config.id2label == dict(enumerate(CLASSES))
    assert peer.config.label2id['owl'] == 2
    # and come back
    checkpoint = load_checkpoint(ours('both'), str(tmp_path / 'hub'))
    assert checkpoint['meta']['dataset_meta']['classes'] == CLASSES
    convert(str(tmp_path / 'hub'), str(tmp_path / 'b.pth'), 'mmpretrain')
    meta = torch.load(tmp_path / 'b.pth')['meta']
    assert meta['dataset_meta']['classes'] == CLASSES


def test_a_thousand_classes_are_those_of_imagenet(tmp_path):
    peer = timm.create_model('deit_tiny_patch16_224', depth=1, img_size=32)
    torch.save(peer.state_dict(), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers')
    config = config_of(tmp_path / 'hub')
    assert config['id2label']['0'] == IMAGENET_CATEGORIES[0]
    assert len(config['id2label']) == 1000
    assert config['num_attention_heads'] == 3  # width 192
    assert config['layer_norm_eps'] == 1e-6
    assert config['architectures'] == ['ViTForImageClassification']


@pytest.mark.parametrize('side, size', [(224, 256), (384, 438)])
def test_the_image_processor(side, size, tmp_path):
    save('both', tmp_path / 'a.pth', img_size=side)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'hub')
    assert 'DeiT' in type(processor).__name__
    assert processor.size['height'] == processor.size['width'] == size
    assert processor.crop_size['height'] == side
    assert processor.resample == 3
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]


def test_what_a_run_recorded_is_kept(distilled_cfg, tmp_path):
    """Heads, mean and std are read in the config that mmengine stores."""
    distilled_cfg['data_preprocessor'].update(mean=[51.0, 102.0, 127.5], std=[25.5] * 3)
    make_runner(distilled_cfg, tmp_path, scores=(1.0,)).train()
    convert(str(tmp_path / 'epoch_1.pth'), str(tmp_path / 'hub'), 'transformers')
    assert config_of(tmp_path / 'hub')['num_attention_heads'] == 2
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'hub')
    assert list(processor.image_mean) == pytest.approx([0.2, 0.4, 0.5])
    assert list(processor.image_std) == pytest.approx([0.1] * 3)


def test_the_recorded_config_is_not_run(tmp_path):
    cfg = "model = dict(a=__import__('os').system('touch ran'))"
    save('both', tmp_path / 'a.pth', cfg=cfg)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    assert not os.path.exists('ran')


def test_a_processor_beside_the_source_is_kept(tmp_path):
    huggings('both').save_pretrained(tmp_path / 'hub')
    transformers.DeiTImageProcessor(image_mean=[0.1, 0.2, 0.3]).save_pretrained(tmp_path / 'hub')
    convert(str(tmp_path / 'hub'), str(tmp_path / 'again'), 'transformers')
    again = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'again')
    assert list(again.image_mean) == [0.1, 0.2, 0.3]


def test_the_moving_average(tmp_path):
    state, average = timms('both').state_dict(), timms('both').state_dict()
    torch.save(dict(model=state, model_ema=average), tmp_path / 'a.pth')
    for ema, expected in ((False, state), (True, average)):
        target = str(tmp_path / f'{ema}.pth')
        convert(str(tmp_path / 'a.pth'), target, 'timm', ema=ema)
        equal(torch.load(target), expected)
    with pytest.raises(ValueError, match='holds no state_dict_ema'):
        convert(target, str(tmp_path / 'c.pth'), 'timm', ema=True)


def test_another_files_config_is_not_this_ones(tmp_path):
    save('both', tmp_path / 'a.pth')
    (tmp_path / 'config.json').write_text(json.dumps(dict(model_type='deit', num_attention_heads=8)))
    (tmp_path / 'preprocessor_config.json').write_text('{"size": 999}')
    with pytest.raises(ValueError, match='--num-heads'):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=2)
    assert 'size": 999' not in (tmp_path / 'b' / 'preprocessor_config.json').read_text()


def test_a_grid_that_is_no_square(tmp_path):
    cfg = 'model = dict(backbone=dict(img_size=(16, 64)))'
    model = save('both', tmp_path / 'a.pth', img_size=(16, 64), cfg=cfg)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=2)
    peer = from_transformers('both', tmp_path / 'b')
    x = torch.randn(2, 3, 16, 64)
    torch.testing.assert_close(answer(peer, x), answer(model, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    'pipeline, expected',
    [
        (
            "[dict(type='Resize', scale=(16, 12))]",
            dict(size=dict(height=12, width=16), do_center_crop=False),
        ),
        (
            "[dict(type='ResizeEdge', scale=40), dict(type='CenterCrop', crop_size=32)]",
            dict(size=dict(height=40, width=40), crop_size=dict(height=32, width=32)),
        ),
        ("[dict(type='PackInputs')]", dict(do_resize=False, do_center_crop=False)),
    ],
)
def test_images_are_prepared_as_in_the_run(pipeline, expected, tmp_path):
    cfg = f'test_dataloader = dict(dataset=dict(pipeline={pipeline}))'
    save('both', tmp_path / 'a.pth', cfg=cfg)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=2)
    given = json.loads((tmp_path / 'b' / 'preprocessor_config.json').read_text())
    assert {key: given[key] for key in expected} == expected


@pytest.mark.parametrize(
    'meta',
    [
        None,
        [],
        dict(dataset_meta=dict(classes=5)),
        dict(dataset_meta=dict(classes=[['a']] * NUM_CLASSES)),
        dict(cfg=3),
    ],
)
def test_odd_logs_of_a_run(meta, tmp_path):
    model = ours('both')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=2)
    from_transformers('both', tmp_path / 'b')


# --- nothing is lost ------------------------------------------------------


def test_nothing_is_overwritten(tmp_path, capsys):
    save('both', tmp_path / 'a.pth')
    target = tmp_path / 'b.pth'
    target.write_text('mine')
    command = ['convert', str(tmp_path / 'a.pth'), str(target), '--to', 'timm']
    assert main(command) == 2
    assert '--force' in capsys.readouterr().err
    assert target.read_text() == 'mine'
    assert main([*command, '--force']) == 0
    assert 'cls_token' in torch.load(target)


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    save('both', tmp_path / 'a.pth')
    source, folder = str(tmp_path / 'a.pth'), tmp_path / 'hub'
    convert(source, str(folder), 'transformers', num_heads=2)
    first = (folder / 'config.json').read_text()
    convert(source, str(folder), 'transformers', num_heads=4, force=True)
    assert (folder / 'config.json').read_text() != first
    (folder / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='notes.txt'):
        convert(source, str(folder), 'transformers', num_heads=2, force=True)
    with pytest.raises(FileExistsError, match='writes a file'):
        convert(source, str(folder), 'timm', force=True)
    assert sorted(os.listdir(tmp_path)) == ['a.pth', 'hub']


@pytest.mark.parametrize('to', ['timm', 'transformers'])
def test_a_full_disk_leaves_nothing_and_names_the_file(to, tmp_path, monkeypatch, capsys):
    save('both', tmp_path / 'a.pth')

    def full(handle):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    arguments = ['convert', str(tmp_path / 'a.pth'), str(tmp_path / 'b'), '--to', to, '--num-heads', '2']
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert 'No room for' in error and str(tmp_path / 'b') in error and 'Traceback' not in error
    assert os.listdir(tmp_path) == ['a.pth']


# --- what cannot be -------------------------------------------------------


def test_a_distilled_model_with_one_head_is_none_of_timms(tmp_path):
    save('cls', tmp_path / 'a.pth')
    for to in ('timm', 'facebook'):
        with pytest.raises(ValueError, match='has two heads'):
            convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), to)


def test_a_head_on_the_distillation_token_is_refused(tmp_path):
    cfg = "model = dict(neck=dict(type='DistillationTokenNeck', token='dist'))"
    save('cls', tmp_path / 'a.pth', cfg=cfg)
    with pytest.raises(ValueError, match='distillation token'):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers')


@pytest.mark.parametrize('number', [0, 3])
def test_a_number_of_heads_that_cannot_be(number, tmp_path):
    save('both', tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=f'{number} attention heads'):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=number)


def test_another_activation_is_refused(tmp_path):
    peer = huggings('both')
    peer.config.hidden_act = 'relu'
    peer.save_pretrained(tmp_path / 'hub')
    with pytest.raises(ValueError, match="activation 'relu'"):
        convert(str(tmp_path / 'hub'), str(tmp_path / 'b'), 'transformers')


def test_the_number_of_heads_is_asked_for(tmp_path, capsys):
    save('both', tmp_path / 'a.pth')
    assert main(['convert', str(tmp_path / 'a.pth'), str(tmp_path / 'b'), '--to', 'transformers']) == 2
    assert 'width 32: give --num-heads' in capsys.readouterr().err


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda s: s.pop('blocks.1.mlp.fc1.weight'), 'not a whole DeiT.*ffn'),
        (lambda s: s.pop('pos_embed'), 'not a whole DeiT.*pos_embed'),
        (lambda s: s.update(extra=torch.ones(1)), 'no place for extra'),
        (lambda s: s.update({'blocks.1.norm1.weight': torch.ones(3)}), 'not a whole DeiT.*ln1'),
    ],
)
def test_what_is_no_whole_deit_is_not_written(spoil, message, tmp_path):
    state = timms('both').state_dict()
    spoil(state)
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'mmpretrain')
    assert os.listdir(tmp_path) == ['a.pth']


@pytest.mark.slow
def test_the_console(tmp_path):
    result = subprocess.run(
        [sys.executable, '-m', 'deit_plugin', 'convert', 'absent.pth', 'b', '--to', 'timm'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("deit-plugin: There is no checkpoint 'absent.pth'")
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('size', [-32, 'large', [32], [8, -128], None])
def test_a_recorded_image_size_that_is_none(size, tmp_path):
    save('both', tmp_path / 'a.pth', cfg=f'model = dict(backbone=dict(img_size={size!r}))')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=2)
    assert config_of(tmp_path / 'b')['image_size'] == SIDE


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'module._orig_mod.'])
def test_a_weight_that_is_there_twice_is_refused(prefix, tmp_path):
    """Else the order in the file would choose between them."""
    weights = ours('both').state_dict()
    name = 'head.layers.head.weight'
    for order in (0, 1):
        pair = [(name, weights[name]), (prefix + name, weights[name] + 1)]
        twice = dict(pair[::-1] if order else pair)
        torch.save(dict(state_dict={**twice, **weights}), tmp_path / 'a.pth')
        with pytest.raises(ValueError, match=r'the same without `module\.`|There are two of head'):
            convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'mmpretrain')
    assert os.listdir(tmp_path) == ['a.pth']


@pytest.mark.parametrize(
    'classes',
    [
        ['\ud800', '\x1b[2J', 'a', '', '<b>'],
        [None, 3, [1], {}, 'e'],
        ['a'] * NUM_CLASSES,
        [[['a'] * 9] * 9] * 5,
    ],
)
def test_odd_names_of_classes_are_written_as_text(classes, tmp_path):
    save('both', tmp_path / 'a.pth', dataset_meta=dict(classes=classes))
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'transformers', num_heads=2)
    assert config_of(tmp_path / 'b')['id2label'] == {str(i): str(name) for i, name in enumerate(classes)}
