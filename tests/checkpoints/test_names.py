"""Any DeiT checkpoint in: recognised by its content, placed by its names."""

import json
import os
import pickle
import re

import h5py
import pytest
import safetensors.torch
import timm
import torch
import transformers
from conftest import ARCH, NUM_CLASSES, build, make_batch, make_runner, shuffle_weights, step
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmpretrain.registry import MODELS
from peers import (
    DUAL,
    HEAD_NAMES,
    SIDE,
    SINGLE,
    TOKENS,
    answer,
    deit3_of_timm,
    huggings,
    images,
    mask,
    ours,
    timms,
)
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from deit_plugin.checkpoints.names import from_mmpretrain, to_mmpretrain
from deit_plugin.checkpoints.strict import load_strict


def save_keras(state_dict, path, name='tf_dei_t_for_something'):
    """As transformers 4.57 with Keras 2 writes ``tf_model.h5``."""
    with h5py.File(path, 'w') as file:
        file.attrs['backend'] = 'tensorflow'
        file.create_group('top_level_model_weights')
        for key, value in state_dict.items():
            if not key.startswith(('deit.', 'decoder.')) and 'classifier' not in key:
                key = 'deit.' + key  # the base model has no prefix
            stem, kind = re.fullmatch(r'(.*?)(?:\.(weight|bias))?', key).groups()
            if kind == 'weight' and 'layernorm' in stem:
                stem += '.gamma'
            elif kind == 'weight':
                stem += '.kernel'
                value = value.T if value.ndim == 2 else value.permute(2, 3, 1, 0)
            elif kind:
                stem += '.beta' if 'layernorm' in stem else '.bias'
            stem = re.sub(r'layer\.(\d+)', r'layer_._\1', stem)
            layer = stem.split('.')[0]
            path = re.sub(r'\.(?!_)(?<!_\.)', '/', stem)
            file[f'{layer}/{name}/{path}:0'] = value.numpy()


def on_disk(model, folder):
    """The state dict as ``save_pretrained`` writes it: the older names."""
    model.save_pretrained(folder)
    return safetensors.torch.load_file(folder / 'model.safetensors')


# --- each form, as a file -------------------------------------------------


def _facebook(model, path):
    torch.save(dict(model=model.state_dict()), path / 'a.pth')
    return path / 'a.pth'


def _facebook_training(model, path):
    state = {'module.' + k: v for k, v in model.state_dict().items()}
    args = __import__('argparse').Namespace(lr=5e-4)
    torch.save(dict(model=state, epoch=3, args=args), path / 'b.bin')
    return path / 'b.bin'


def _bare(model, path):
    torch.save(model.state_dict(), path / 'pytorch_model.bin')
    return path / 'pytorch_model.bin'


def _safetensors(model, path):
    # The name says something else: the content counts.
    safetensors.torch.save_file(model.state_dict(), path / 'weights.pth')
    return path / 'weights.pth'


@pytest.mark.parametrize('kind', ['plain', 'both'])
@pytest.mark.parametrize('save', [_facebook, _facebook_training, _bare, _safetensors])
def test_weights_under_the_names_of_timm(kind, save, tmp_path):
    peer = timms(kind)
    model = ours(kind)
    load_checkpoint(model, str(save(peer, tmp_path)), strict=True)
    x = images()
    torch.testing.assert_close(answer(model, x), answer(peer, x), atol=1e-4, rtol=0)


def _folder(model, path):
    model.save_pretrained(path / 'hub')
    return path / 'hub'


def _single(model, path):
    return _folder(model, path) / 'model.safetensors'


def _shards(model, path):
    model.save_pretrained(path / 'hub', max_shard_size='20KB')
    assert len(list((path / 'hub').glob('model-*.safetensors'))) > 2
    return path / 'hub'


def _index(model, path):
    return _shards(model, path) / 'model.safetensors.index.json'


def _version_4(model, path):
    torch.save(on_disk(model, path / 'new'), path / 'pytorch_model.bin')
    return path


def _sharded_bins(model, path):
    weights = on_disk(model, path / 'new')
    parts = {f'pytorch_model-{i}.bin': list(weights)[i::2] for i in range(2)}
    for name, keys in parts.items():
        torch.save({k: weights[k] for k in keys}, path / name)
    index = {k: name for name, keys in parts.items() for k in keys}
    (path / 'pytorch_model.bin.index.json').write_text(json.dumps(dict(metadata={}, weight_map=index)))
    return path


def _keras(model, path):
    save_keras(on_disk(model, path / 'new'), path / 'tf_model.h5')
    return path


@pytest.mark.parametrize('kind', HEAD_NAMES)
@pytest.mark.parametrize(
    'save', [_folder, _single, _shards, _index, _bare, _version_4, _sharded_bins, _keras]
)
def test_weights_of_transformers(kind, save, tmp_path):
    if kind == 'plain' and save is _keras:
        pytest.skip('the issue is of the TFDeiT classes')
    if kind == 'masked' and not hasattr(
        transformers.DeiTModel(transformers.DeiTConfig(num_hidden_layers=1)), 'layers'
    ):
        pytest.skip('this transformers decodes the distillation token in place of the first patch')
    peer = huggings(kind)
    model = ours(kind)
    load_checkpoint(model, str(save(peer, tmp_path)), strict=True)
    x = images()
    torch.testing.assert_close(answer(model, x), answer(peer, x), atol=1e-4, rtol=0)


def test_the_loss_of_masked_modelling(tmp_path):
    peer, model = huggings('masked'), ours('masked')
    load_checkpoint(model, str(_folder(peer, tmp_path)))
    x = images()
    loss = peer(x, bool_masked_pos=mask().flatten(1)).loss
    features = model.backbone(x, mask())
    own = model.head.loss(model.neck(features[0]), x, mask())
    torch.testing.assert_close(own, loss, atol=1e-5, rtol=1e-5)


def _own(model, path):
    torch.save(dict(state_dict=model.state_dict(), meta={}), path / 'a.pth')


def _mmcls(model, path):
    state = model.state_dict()
    copies = {'ema_' + k.replace('.', '_'): torch.zeros_like(v) for k, v in state.items() if 'backbone' in k}
    torch.save(dict(state_dict={**state, **copies}, meta=dict(CLASSES=['a'])), path / 'a.pth')


def _compiled(model, path):
    state = {'_orig_mod.' + k: v for k, v in model.state_dict().items()}
    torch.save(dict(state_dict=state), path / 'a.pth')


@pytest.mark.parametrize('save', [_own, _mmcls, _compiled])
def test_weights_of_mmpretrain(save, tmp_path):
    peer = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='DistilledVisionTransformer', arch=ARCH, img_size=SIDE, patch_size=8),
            head=dict(type='DeiTClsHead', num_classes=NUM_CLASSES, in_channels=32),
        )
    )
    shuffle_weights(peer)
    save(peer, tmp_path)
    model = ours('both')
    load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
    x = images()
    torch.testing.assert_close(answer(model, x), answer(peer, x), atol=1e-5, rtol=0)


def test_the_moving_average_of_our_own_runs_is_what_is_evaluated(distilled_cfg, tmp_path):
    hooks = [dict(type='EMAHook', momentum=0.4)]
    runner = make_runner(distilled_cfg, tmp_path, scores=(1.0,), custom_hooks=hooks)
    runner.train()
    file = str(tmp_path / 'epoch_1.pth')
    saved = torch.load(file, weights_only=True)
    average = build(distilled_cfg)
    load_checkpoint(average, file)
    name = 'backbone.layers.0.attn.qkv.weight'
    assert torch.equal(average.state_dict()[name], saved['state_dict'][name])
    raw = saved['ema_state_dict']['module.' + name]
    assert not torch.equal(average.state_dict()[name], raw)
    ema = runner._hooks[[type(h).__name__ for h in runner._hooks].index('EMAHook')].ema_model.state_dict()
    assert torch.equal(average.state_dict()[name], ema['module.' + name])


def test_a_moving_average_beside_the_weights_is_told_of(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(
        'deit_plugin.checkpoints.contents.print_log', lambda text, **kwargs: said.append(text)
    )
    state = timms('both').state_dict()
    torch.save(dict(model=state, model_ema=state), tmp_path / 'a.pth')
    load_checkpoint(ours('both'), str(tmp_path / 'a.pth'))
    assert 'moving average' in said[0] and 'model_ema' in said[0]


def test_class_names_beside_weights_of_pytorch(tmp_path):
    peer = huggings('both')
    peer.config.id2label = {i: f'class {i}' for i in range(NUM_CLASSES)}
    _version_4(peer, tmp_path)
    peer.config.save_pretrained(tmp_path)
    model = ours('both')
    for path in (tmp_path, tmp_path / 'pytorch_model.bin'):
        checkpoint = load_checkpoint(model, str(path), strict=True)
        assert checkpoint['meta']['dataset_meta']['classes'][1] == 'class 1'
    load_strict(model, str(tmp_path))


@pytest.mark.parametrize(
    'content',
    [
        '[]',
        'null',
        '{"model_type": "deit", "id2label": null}',
        '{"model_type": "deit", "id2label": ["a"]}',
    ],
)
def test_an_odd_config_beside_the_weights(content, tmp_path):
    _version_4(huggings('both'), tmp_path)
    (tmp_path / 'config.json').write_text(content)
    load_checkpoint(ours('both'), str(tmp_path), strict=True)


def test_what_timm_allowed_for_a_while_is_still_allowed(tmp_path):
    path = _facebook_training(timms('both'), tmp_path)
    with torch.serialization.safe_globals([__import__('argparse').Namespace]):
        pass
    load_checkpoint(ours('both'), str(path), strict=True)


# --- each way in ----------------------------------------------------------


@pytest.mark.parametrize('prefix', [{}, dict(prefix='backbone.')])
@pytest.mark.parametrize('save', [_bare, _facebook, _folder, _own])
def test_init_cfg_of_the_backbone(save, prefix, tmp_path):
    peer = (
        huggings('both')
        if save is _folder
        else shuffle_weights(ours('both'))
        if save is _own
        else timms('both')
    )
    path = save(peer, tmp_path) or tmp_path / 'a.pth'
    model = ours('both')
    cfg = dict(type='Pretrained', checkpoint=str(path), **prefix)
    cfgs = build(dict(type='DeiT', arch=ARCH, img_size=SIDE, patch_size=8, distilled=True, init_cfg=cfg))
    cfgs.init_weights()
    load_checkpoint(model, str(path))
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, cfgs.state_dict()[name]), name


def test_init_cfg_of_the_classifier(tmp_path):
    peer = huggings('both')
    model = ours('both', init_cfg=dict(type='Pretrained', checkpoint=str(_folder(peer, tmp_path))))
    model.init_weights()
    x = images()
    torch.testing.assert_close(answer(model, x), answer(peer, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize('hook', [True, False])
def test_load_from_of_a_run(hook, distilled_cfg, tmp_path):
    peer = timms('both')
    path = str(_facebook(peer, tmp_path))
    hooks = [dict(type='FilledModelHook')] if hook else []
    runner = make_runner(distilled_cfg, tmp_path, load_from=path, custom_hooks=hooks)
    runner.load_or_resume()
    x = images()
    torch.testing.assert_close(answer(runner.model, x), answer(peer, x), atol=1e-4, rtol=0)


@pytest.mark.parametrize('peer', [timms, huggings])
def test_a_deit_teaches(peer, distilled_cfg, tmp_path):
    teacher = peer('both')
    path = _facebook(teacher, tmp_path) if peer is timms else _folder(teacher, tmp_path)
    distilled_cfg['teacher'] = dict(
        type='DistilledClassifier',
        backbone=distilled_cfg['backbone'],
        neck=TOKENS,
        head=DUAL,
        checkpoint=str(path),
    )
    model = build(distilled_cfg)
    step(model, make_batch())
    x = images()
    torch.testing.assert_close(model.teacher(x), answer(teacher, x), atol=1e-4, rtol=0)


def test_timms_own_deit_keeps_its_names(tmp_path):
    """A DeiT of timm, as a teacher or tested, is no DeiT of ours."""
    cfg = dict(
        type='TimmClassifier',
        model_name='deit_tiny_patch16_224',
        img_size=SIDE,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=2,
        num_classes=NUM_CLASSES,
    )
    model, other = shuffle_weights(build(cfg)), build(cfg)
    torch.save(dict(model=model.model.state_dict()), tmp_path / 'a.pth')
    load_strict(other, str(tmp_path / 'a.pth'))
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


def test_two_files_of_the_same_name_on_the_hub_are_two(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))

    def download(address, path):
        torch.save(dict(which=torch.tensor(len(address))), path)

    monkeypatch.setattr('deit_plugin.checkpoints.downloads._retrieve', download)
    a, b = (f'https://hub.test/{name}/resolve/main/pytorch_model.bin' for name in ('tiny', 'small'))
    for address in (a, b, a):
        loaded = CheckpointLoader.load_checkpoint(address)
        assert loaded['which'] == len(address)
    monkeypatch.setattr('deit_plugin.checkpoints.downloads._check_hash', lambda *args: None)
    kept = 'https://hub.test/deit_tiny_patch16_224-a1311bcf.pth'
    CheckpointLoader.load_checkpoint(kept)
    assert 'deit_tiny_patch16_224-a1311bcf.pth' in os.listdir(tmp_path / 'checkpoints')


# --- what does not fit at once --------------------------------------------


@pytest.mark.parametrize('peer', [timms, huggings])
def test_position_embeddings_of_another_resolution(peer, tmp_path):
    source = peer('both', img_size=48)
    path = _bare(source, tmp_path)
    model = ours('both')
    load_checkpoint(model, str(path))
    resampled = timm.layers.resample_abs_pos_embed(
        to_mmpretrain(source.state_dict())[1]['backbone.pos_embed'],
        new_size=[4, 4],
        num_prefix_tokens=2,
        antialias=False,
    )
    torch.testing.assert_close(model.backbone.pos_embed, resampled, atol=1e-5, rtol=0)


@pytest.mark.parametrize('peer', [timms, huggings])
@pytest.mark.parametrize(
    'source, target, lacks',
    [
        ('plain', 'both', ['backbone.dist_token', 'head.layers.head_dist.bias']),
        ('both', 'plain', []),
    ],
)
def test_plain_into_distilled_and_back(peer, source, target, lacks, distilled_cfg, tmp_path):
    model = peer(source)
    path = str(_bare(model, tmp_path))
    cfg = {**distilled_cfg}
    if target == 'plain':
        del cfg['neck'], cfg['teacher']
        cfg.update(type='ImageClassifier', head=SINGLE)
        cfg['backbone']['distilled'] = False
    runner = make_runner(cfg, tmp_path, load_from=path, custom_hooks=[dict(type='FilledModelHook')])
    runner.train()
    log = next(tmp_path.rglob('*.log')).read_text()
    assert ('Not filled by the checkpoint' in log) == bool(lacks)
    for name in lacks:
        assert name in log
    if target == 'plain':
        assert 'dist_token and its position are left out' in log
    else:  # and it is not evaluated half filled
        tested = make_runner(
            cfg,
            tmp_path,
            load_from=path,
            test_dataloader=runner.cfg.val_dataloader,
            test_cfg=dict(),
            test_evaluator=dict(type='Scripted', values=[1.0]),
            custom_hooks=[dict(type='FilledModelHook')],
        )
        with pytest.raises(ValueError, match='does not fill'):
            tested.test()


@pytest.mark.parametrize('peer', [timms, huggings])
def test_a_head_of_another_number_of_classes(peer, distilled_cfg, tmp_path):
    path = str(_bare(peer('both'), tmp_path))
    distilled_cfg['head']['num_classes'] = NUM_CLASSES + 2
    distilled_cfg['teacher']['num_classes'] = NUM_CLASSES + 2
    distilled_cfg['data_preprocessor']['num_classes'] = NUM_CLASSES + 2
    runner = make_runner(distilled_cfg, tmp_path, load_from=path, custom_hooks=[dict(type='FilledModelHook')])
    runner.train()
    log = next(tmp_path.rglob('*.log')).read_text()
    assert re.search('Not filled.*head.layers.head.weight', log)


def test_fused_and_split_attention_are_the_same_weights():
    state = timms('both').state_dict()
    split = {}
    for name, value in state.items():
        if '.qkv.' in name:
            for part, third in zip('qkv', value.chunk(3)):
                split[name.replace('.qkv.', f'.{part}.')] = third
        else:
            split[name] = value
    fused, again = to_mmpretrain(state)[1], to_mmpretrain(split)[1]
    assert fused.keys() == again.keys()
    assert all(torch.equal(fused[k], again[k]) for k in fused)


@st.composite
def classifiers(draw):
    """The names of a classifier of ours of some depth and with some heads, each with a value of its own."""
    distilled = draw(st.booleans())
    names = ['cls_token', 'pos_embed', 'patch_embed.projection.weight', 'patch_embed.projection.bias']
    names += ['dist_token'] * distilled + ['ln1.weight', 'ln1.bias']
    parts = ('ln1', 'attn.qkv', 'attn.proj', 'ln2', 'ffn.layers.0.0', 'ffn.layers.1')
    scales = draw(st.sampled_from([[], ['attn.gamma1', 'ffn.gamma2']]))
    for layer in range(draw(st.integers(1, 13))):
        names += [f'layers.{layer}.{part}.{kind}' for part in parts for kind in ('weight', 'bias')]
        names += [f'layers.{layer}.{scale}.weight' for scale in scales]
    names = [f'backbone.{name}' for name in names]
    heads = draw(st.sampled_from([[], ['head'], ['head', 'head_dist']] if distilled else [[], ['head']]))
    names += [f'head.layers.{head}.{kind}' for head in heads for kind in ('weight', 'bias')]
    shapes = [(6, 2) if 'qkv.weight' in name else (6,) for name in names]
    return {name: torch.full(shape, float(i)) for i, (name, shape) in enumerate(zip(names, shapes))}


@settings(max_examples=60, deadline=None)
@given(
    classifiers(),
    st.sampled_from(['timm', 'facebook', 'transformers', 'mmpretrain']),
    st.sampled_from(['', 'module.', '_orig_mod.', 'module._orig_mod.']),
)
def test_names_go_there_and_back(weights, target, prefix):
    assume(target != 'transformers' or 'backbone.layers.0.attn.gamma1.weight' not in weights)
    there = {prefix + name: value for name, value in from_mmpretrain(weights, target).items()}
    library, back = to_mmpretrain(there)
    assert library == target.replace('facebook', 'timm')
    assert back.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in back.items())


def test_fused_beside_split_attention_is_refused():
    state = timms('both').state_dict()
    name = 'blocks.1.attn.qkv.bias'
    for part, third in zip('qkv', state[name].chunk(3)):
        state[name.replace('qkv', part)] = third
    with pytest.raises(ValueError, match=r'place for blocks\.1\.attn\.q\.'):
        to_mmpretrain(state)


@pytest.mark.parametrize('save', [_facebook, _folder, _own])
@pytest.mark.parametrize('way', ['load_from', 'init_cfg'])
def test_lora_does_not_start_from_a_random_backbone(save, way, tmp_path):
    peer = huggings('both') if save is _folder else ours('both') if save is _own else timms('both')
    path = str(save(shuffle_weights(peer), tmp_path) or tmp_path / 'a.pth')
    backbone = dict(type='DeiT', arch=ARCH, img_size=SIDE, patch_size=8, distilled=True)
    if way == 'init_cfg':
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=path)
    cfg = dict(
        type='LoRAModel',
        module=dict(type='DistilledClassifier', backbone=backbone, neck=TOKENS, head=DUAL),
        alpha=1,
        rank=1,
        targets=[dict(type='qkv')],
    )
    hooks = [dict(type='FilledModelHook')]
    if way == 'load_from':
        runner = make_runner(cfg, tmp_path, load_from=path, custom_hooks=hooks)
        with pytest.raises(ValueError, match='does not fill'):
            runner.train()
        return
    model = ours('both')
    load_checkpoint(model, path)
    weight = build(cfg).module.backbone.layers[0].attn.qkv.original_layer.weight
    assert torch.equal(weight, model.backbone.layers[0].attn.qkv.weight)


# --- wrong files ----------------------------------------------------------


class Code:
    def __reduce__(self):
        return os.system, ('touch ran',)


def _absent(path):
    return path / 'absent.pth'


def _empty(path):
    (path / 'a.pth').touch()
    return path / 'a.pth'


def _truncated(path):
    _bare(timms('both'), path)
    data = (path / 'pytorch_model.bin').read_bytes()
    (path / 'a.pth').write_bytes(data[: len(data) // 2])
    return path / 'a.pth'


def _truncated_safetensors(path):
    data = _safetensors(timms('both'), path).read_bytes()
    (path / 'weights.pth').write_bytes(data[: len(data) // 2])
    return path / 'weights.pth'


def _truncated_keras(path):
    _keras(huggings('both'), path)
    data = (path / 'tf_model.h5').read_bytes()
    (path / 'tf_model.h5').write_bytes(data[: len(data) // 2])
    return path / 'tf_model.h5'


def _code(path):
    torch.save(dict(model=Code()), path / 'a.pth')
    return path / 'a.pth'


def _web_page(path):
    (path / 'a.pth').write_text('<!DOCTYPE html><title>404</title>')
    return path / 'a.pth'


def _lfs_pointer(path):
    (path / 'a.pth').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n')
    return path / 'a.pth'


def _no_weights(path):
    (path / 'hub').mkdir()
    (path / 'hub' / 'config.json').write_text('{}')
    return path / 'hub'


def _lost_shard(path):
    folder = _shards(huggings('both'), path)
    sorted(folder.glob('model-*.safetensors'))[1].unlink()
    return folder


def _other_model(path):
    return _bare(timm.create_model('resnet10t'), path)


def _deit3(path):
    return _bare(deit3_of_timm(), path)


def _other_size(path):
    torch.save(
        VisionTransformerDistilled(
            img_size=SIDE, patch_size=8, embed_dim=16, depth=3, num_heads=2
        ).state_dict(),
        path / 'a.pth',
    )
    return path / 'a.pth'


def _part(path):
    state = timms('both').state_dict()
    torch.save({k: v for k, v in state.items() if 'blocks.1.mlp' not in k}, path / 'a.pth')
    return path / 'a.pth'


def _other_keras(path):
    with h5py.File(path / 'a.h5', 'w') as file:
        file.create_group('nothing')
    return path / 'a.h5'


@pytest.mark.parametrize(
    'make, error, message',
    [
        (_absent, FileNotFoundError, r'There is no checkpoint .*absent\.pth'),
        (_empty, ValueError, r'cannot be read, .*0 bytes'),
        (_truncated, ValueError, r'damaged or no checkpoint .* download it again'),
        (_truncated_safetensors, ValueError, 'damaged or no checkpoint'),
        (_truncated_keras, ValueError, 'damaged or no checkpoint'),
        (_code, pickle.UnpicklingError, 'refused, nothing in it was run'),
        (_web_page, ValueError, 'it is a web page'),
        (_lfs_pointer, ValueError, 'it is a Git LFS pointer'),
        (_no_weights, FileNotFoundError, 'a folder without weights'),
        (_lost_shard, FileNotFoundError, 'names model-.*, which is not beside'),
        (_other_keras, ValueError, 'HDF5 without weights'),
        (_other_model, ValueError, r'of no DeiT .* no place for conv1\.0\.weight'),
        (_deit3, ValueError, r'not known here are .* It has LayerScale, as a DeiT III'),
        (_other_size, ValueError, r'the shapes differ in backbone\.cls_token'),
        (_part, ValueError, r'lacks backbone\.layers\.1\.ffn'),
    ],
)
def test_wrong_files(make, error, message, tmp_path, monkeypatch):
    """The table of errors."""
    monkeypatch.chdir(tmp_path)
    path = str(make(tmp_path))
    model = ours('both')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(error, match=message) as caught:
        load_checkpoint(model, path)
    print(f'| {make.__name__[1:].replace("_", " ")} | {caught.value} |')
    assert not os.path.exists('ran')
    if make not in (_other_size, _part):
        assert os.path.basename(path) in str(caught.value) or make in (_other_model, _deit3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])  # not half filled


def test_h5py_is_asked_for(tmp_path, monkeypatch):
    path = _other_keras(tmp_path)
    monkeypatch.setitem(__import__('sys').modules, 'h5py', None)
    with pytest.raises(ModuleNotFoundError, match='pip install h5py'):
        CheckpointLoader.load_checkpoint(str(path))


def test_a_file_that_asks_for_another_folder_gets_nothing(tmp_path):
    """The index of shards names files beside it, none elsewhere."""
    torch.save(dict(a=torch.ones(1)), tmp_path / 'secret.bin')
    (tmp_path / 'hub').mkdir()
    index = dict(weight_map=dict(a='../secret.bin'))
    path = tmp_path / 'hub' / 'pytorch_model.bin.index.json'
    path.write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match='not beside it'):
        CheckpointLoader.load_checkpoint(str(path))


def test_a_model_that_is_no_deit_is_left_alone(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2))
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    assert load_checkpoint(model, str(tmp_path / 'a.pth'), strict=True)
