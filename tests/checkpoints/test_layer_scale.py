"""DeiT III checkpoints of each library in, and out again."""

import json
import re

import pytest
import safetensors.torch
import timm
import torch
import transformers
from conftest import ARCH, NUM_CLASSES, build
from mmengine.runner import load_checkpoint
from peers import SINGLE, SMALL_DEIT3, answer, deit3_of_timm, each_matters, images, our_deit3, ours
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision import transforms

from deit_plugin.apis.convert import convert
from deit_plugin.checkpoints import recorded
from deit_plugin.checkpoints.names import to_mmpretrain
from deit_plugin.checkpoints.pos_embed import position_tokens
from deit_plugin.checkpoints.recorded import architecture
from deit_plugin.checkpoints.strict import load_strict


def facebooks(state):
    """The names of models_v2.py."""
    return {re.sub(r'ls(\d)\.gamma', r'gamma_\1', name): value for name, value in state.items()}


def zoo():
    """mmpretrain's own model, whose names are right."""
    backbone = dict(type='DeiT3', arch=ARCH, img_size=32, patch_size=8)
    return build(dict(type='ImageClassifier', backbone=backbone, head=SINGLE))


def written(library, theirs, path):
    """A checkpoint as each library has it."""
    weights = theirs.state_dict()
    if library == 'facebook':
        weights = dict(model=facebooks(weights))
    elif library == 'mmpretrain':
        model = zoo()
        model.load_state_dict(our_deit3(theirs).state_dict())
        weights = dict(state_dict=model.state_dict(), meta={})
    torch.save(weights, path)
    return str(path)


@pytest.mark.parametrize('load', [load_checkpoint, load_strict])
@pytest.mark.parametrize('library', ['facebook', 'timm', 'mmpretrain'])
def test_weights_load_as_they_are(library, load, tmp_path):
    theirs, model = deit3_of_timm(), our_deit3()
    load(model, written(library, theirs, tmp_path / 'a.pth'))
    x = images()
    torch.testing.assert_close(answer(model, x), answer(theirs, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize('library', ['facebook', 'timm', 'mmpretrain'])
def test_positions_of_another_size_are_resized(library, tmp_path):
    theirs, model = deit3_of_timm(), our_deit3(img_size=48)
    load_strict(model, written(library, theirs, tmp_path / 'a.pth'))
    grid = theirs.pos_embed.detach().unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(6, 6), mode='bicubic', align_corners=False)
    torch.testing.assert_close(model.backbone.pos_embed.data, grid.flatten(2).transpose(1, 2))
    other = deit3_of_timm(**{**SMALL_DEIT3, 'img_size': 48})
    other.load_state_dict({**theirs.state_dict(), 'pos_embed': model.backbone.pos_embed.data})
    x = images(48)
    torch.testing.assert_close(answer(model, x), answer(other, x), atol=1e-5, rtol=0)


def test_a_head_of_other_classes_is_drawn_anew_and_not_evaluated(tmp_path):
    theirs, model = deit3_of_timm(num_classes=7, **SMALL_DEIT3), our_deit3()
    load_checkpoint(model, written('facebook', theirs, tmp_path / 'a.pth'))
    assert torch.equal(model.backbone.cls_token, theirs.cls_token)
    with pytest.raises(ValueError, match=r'does not fill head\.layers\.head'):
        model.eval()


@pytest.mark.parametrize('library', ['facebook', 'timm', 'mmpretrain'])
def test_a_deit_refuses_it_and_names_the_backbone(library, tmp_path):
    path = written(library, deit3_of_timm(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'gamma1.* It has LayerScale.*`DeiTIII`'):
        load_checkpoint(ours('plain'), path)


@pytest.mark.parametrize('to', ['timm', 'mmpretrain'])
def test_it_refuses_a_deit(to, tmp_path):
    torch.save(ours('plain').state_dict(), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), to)
    message = 'no LayerScale.*`DeiT`' if to == 'timm' else '17 positions, 1 of them of tokens.* 0 of tokens'
    with pytest.raises(ValueError, match=message):
        load_checkpoint(our_deit3(), str(tmp_path / 'b.pth'))


def test_layer_scale_twice_is_refused():
    state = deit3_of_timm().state_dict()
    state['blocks.1.gamma_2'] = state['blocks.1.ls2.gamma'] + 1
    with pytest.raises(ValueError, match=r'no place for blocks\.1\.gamma_2'):
        to_mmpretrain(state)


@pytest.mark.parametrize('library', ['facebook', 'timm', 'mmpretrain'])
@pytest.mark.parametrize('to', ['facebook', 'timm', 'mmpretrain'])
def test_each_becomes_each(library, to, tmp_path):
    """To the bit, under the names of that library."""
    theirs = deit3_of_timm()
    source = written(library, theirs, tmp_path / 'a.pth')
    convert(source, str(tmp_path / 'b.pth'), to)
    given = torch.load(tmp_path / 'b.pth')
    if to == 'mmpretrain':
        zoo().load_state_dict(given['state_dict'])
        expected = our_deit3(theirs).state_dict()
    else:
        expected = facebooks(theirs.state_dict()) if to == 'facebook' else theirs.state_dict()
    given = given.get('model', given.get('state_dict', given))
    assert given.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in given.items())


def test_timm_loads_it(tmp_path):
    model = our_deit3(deit3_of_timm())
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'own.pth')
    convert(str(tmp_path / 'own.pth'), str(tmp_path / 'a.safetensors'), 'timm')
    path = str(tmp_path / 'a.safetensors')
    name = 'deit3_small_patch16_224'
    theirs = timm.create_model(name, checkpoint_path=path, num_classes=NUM_CLASSES, **SMALL_DEIT3)
    x = images()
    torch.testing.assert_close(answer(theirs, x), answer(model, x), atol=1e-5, rtol=0)


@pytest.mark.parametrize('distilled', [False, True])
def test_transformers_gives_the_same_logits(distilled, tmp_path):
    """It has no LayerScale, so this is multiplied into the weights."""
    kind = 'DeiTForImageClassification' if distilled else 'ViTForImageClassification'
    neck = dict(type='DistillationTokenNeck', token='cls') if distilled else None
    backbone = dict(type='DeiTIII', arch=ARCH, img_size=32, patch_size=8, distilled=distilled)
    model = each_matters(build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=SINGLE)))
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    peer, info = getattr(transformers, kind).from_pretrained(tmp_path / 'hub', output_loading_info=True)
    assert not info['missing_keys'] and not info['unexpected_keys']
    x = images()
    expected = answer(model, x)
    assert expected.std(0).mean() > 0.1
    torch.testing.assert_close(answer(peer, x), expected, atol=1e-5, rtol=0)
    with torch.no_grad():  # each position matters
        model.backbone.pos_embed[:, 3, 0] += 3
    assert (answer(model, x) - expected).abs().max() > 1e-3


def test_what_transformers_is_told(tmp_path):
    theirs = deit3_of_timm('large_patch16_224', depth=1)
    torch.save(facebooks(theirs.state_dict()), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers')
    config = json.loads((tmp_path / 'hub' / 'config.json').read_text())
    assert config['num_attention_heads'] == 16 and config['image_size'] == 224
    processor = json.loads((tmp_path / 'hub' / 'preprocessor_config.json').read_text())
    assert processor['size'] == dict(shortest_edge=224)  # no border
    assert processor['crop_size'] == dict(height=224, width=224)
    weights = safetensors.torch.load_file(tmp_path / 'hub' / 'model.safetensors')
    assert weights['vit.embeddings.position_embeddings'].shape == (1, 197, 1024)


@pytest.mark.parametrize('edge', [None, 40])
@pytest.mark.parametrize('size', [(75, 50), (36, 63), (32, 32)])  # half a pixel is rounded otherwise
def test_transformers_prepares_images_as_the_reference_does(edge, size, tmp_path):
    """The shorter side is resized, to that of the crop or as the run was evaluated."""
    steps = [dict(type='ResizeEdge', scale=edge), dict(type='CenterCrop', crop_size=32)]
    cfg = f'test_dataloader = dict(dataset=dict(pipeline={steps}))' if edge else ''
    torch.save(dict(state_dict=our_deit3().state_dict(), meta=dict(cfg=cfg)), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'hub', backend='pil')
    image = Image.fromarray(load_sample_image('china.jpg')).resize(size)
    expected = transforms.Compose(
        [
            transforms.Resize(edge or 32, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        ]
    )(image)
    (given,) = processor(image, return_tensors='pt')['pixel_values']
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


def test_another_model_with_layer_scale_is_none_of_transformers(tmp_path):
    """One whose class token has a position, such as DINOv2."""
    cfg = dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, layer_scale_init_value=0.1)
    model = build(dict(type='ImageClassifier', backbone=cfg, head=SINGLE))
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), 'timm')
    again = build(dict(type='ImageClassifier', backbone=cfg, head=SINGLE))
    load_strict(again, str(tmp_path / 'b.pth'))
    assert torch.equal(again.backbone.pos_embed, model.backbone.pos_embed)
    with pytest.raises(ValueError, match=r'transformers has no place for .*gamma1'):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)


@pytest.mark.parametrize('lost', ['blocks.1.ls1.gamma', 'blocks.2.ls2.gamma', 'blocks.0.ls1.gamma'])
def test_a_part_of_it_is_not_written(lost, tmp_path):
    state = deit3_of_timm().state_dict()
    del state[lost]
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='not a whole DeiT.*gamma'):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b'), 'timm')


@pytest.mark.parametrize('distilled', [False, True])
@pytest.mark.parametrize('img_size', [32, (16, 64), (24, 40)])
def test_the_architecture_is_told_by_the_weights(distilled, img_size):
    model = our_deit3(distilled=distilled, img_size=img_size)
    found = architecture(model.state_dict(), {})
    assert found['layer_scale'] and not found['tokens_have_positions']
    assert found['num_patches'] == model.backbone.pos_embed.shape[1] and found['distilled'] == distilled
    plain = architecture(ours('base' if distilled else 'plain').state_dict(), {})
    assert plain['tokens_have_positions'] and not plain['layer_scale'] and plain['num_patches'] == 16


# Grids of as many patches as a square has, and the tokens more.
ODD = [(False, (40, 80)), (False, (80, 136)), (True, (88, 144))]


@pytest.mark.parametrize('distilled, img_size', ODD)
def test_the_recorded_size_tells_whether_tokens_have_positions(distilled, img_size, tmp_path):
    kind = 'DeiTForImageClassification' if distilled else 'ViTForImageClassification'
    backbone = dict(type='DeiTIII', arch=ARCH, img_size=img_size, patch_size=8, distilled=distilled)
    neck = dict(type='DistillationTokenNeck', token='cls') if distilled else None
    model = each_matters(build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=SINGLE)))
    checkpoint = dict(state_dict=model.state_dict(), meta=dict(cfg=f'model = dict(backbone={backbone})'))
    torch.save(checkpoint, tmp_path / 'a.pth')
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers', num_heads=2)
    peer = getattr(transformers, kind).from_pretrained(tmp_path / 'hub')
    x = torch.randn(1, 3, *img_size)
    torch.testing.assert_close(answer(peer, x), answer(model, x), atol=1e-5, rtol=0)


def test_the_recorded_size_tells_that_a_token_has_a_position():
    """Of a DeiT with LayerScale, whose patches make no square."""
    cfg = dict(type='DeiT', arch=ARCH, img_size=(24, 64), patch_size=8, layer_scale_init_value=0.1)
    state = {f'backbone.{name}': value for name, value in build(cfg).state_dict().items()}
    found = architecture(state, dict(model=dict(backbone=dict(img_size=[24, 64]))))
    assert found['tokens_have_positions'] and found['num_patches'] == 24
    assert not architecture(state, {})['tokens_have_positions']  # 25 are a square


@pytest.mark.parametrize('distilled, img_size', ODD)
def test_where_nothing_tells_it_is_said(distilled, img_size, monkeypatch):
    said = []
    monkeypatch.setattr(recorded, 'print_log', lambda text, **kwargs: said.append(text))
    model = our_deit3(distilled=distilled, img_size=img_size)
    assert architecture(model.state_dict(), {})['tokens_have_positions']
    rows, columns = (side // 8 for side in img_size)
    assert f'DeiT III of a grid such as {rows} x {columns}' in said[0]


@pytest.mark.parametrize('distilled, img_size', ODD)
def test_the_receiving_model_tells_whether_tokens_have_positions(distilled, img_size):
    given = our_deit3(distilled=distilled, img_size=img_size).state_dict()
    number = given['backbone.pos_embed'].shape[1]
    message = (
        f'has {number} patch positions.* no square .*img_size.*; or take `DeiT`, if {1 + distilled} of them'
    )
    with pytest.raises(ValueError, match=message):
        our_deit3(distilled=distilled, img_size=64).load_state_dict(dict(given))
    model = our_deit3(distilled=distilled, img_size=img_size[::-1])  # as many patches
    model.load_state_dict(dict(given))
    assert torch.equal(model.backbone.pos_embed, given['backbone.pos_embed'])
    cfg = dict(type='DeiT', arch=ARCH, img_size=64, patch_size=8, layer_scale_init_value=0.1)
    scaled = build(dict(type='ImageClassifier', backbone=cfg, head=SINGLE))
    square = our_deit3(img_size=48).state_dict()
    with pytest.raises(ValueError, match='35 patch positions.*; or take `DeiTIII`, if none'):
        scaled.load_state_dict(dict(square))


@pytest.mark.parametrize(
    'positions, tokens, expected', [(197, 1, 1), (196, 1, 0), (198, 2, 2), (196, 2, 0), (1, 1, 0), (2, 1, 1)]
)
def test_positions_of_tokens(positions, tokens, expected):
    assert position_tokens(positions, tokens) == expected
