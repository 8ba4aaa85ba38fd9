"""DeiT III beside timm, which has the published models."""

import copy
import re

import pytest
import timm
import torch
from conftest import ARCH, ROOT, build
from mmpretrain.models.backbones.deit3 import DeiT3
from mmpretrain.models.utils.attention import MultiheadAttention
from mmpretrain.registry import MODELS
from peers import SMALL_DEIT3, deit3_of_timm, each_matters, images, our_deit3
from torch import nn

from deit_plugin.models import DeiTIII
from deit_plugin.models.layers import Attention

PUBLISHED = [f'{size}_patch16_224' for size in ('tiny', 'small', 'medium', 'base', 'large')]
PUBLISHED += ['huge_patch14_224', 'small_patch16_384']
SLOW = [pytest.param(f'{size}_patch16_384', marks=pytest.mark.slow) for size in ('base', 'large')]


def tiny(**kwargs):
    return build({**dict(type='DeiTIII', arch=ARCH, img_size=32, patch_size=8), **kwargs})


def known(name):
    """A model of timm; it has no tiny one, which the reference makes as the small one but for these."""
    other = dict(embed_dim=192, num_heads=3) if name.startswith('tiny') else {}
    return name.replace('tiny', 'small'), other


@pytest.mark.parametrize('name', [*PUBLISHED, *SLOW])
def test_logits_equal_timm(name):
    """Of two layers; `tests/benchmarks/logits.py` compares the whole."""
    size, _, side = name.split('_')
    of_timm, other = known(name)
    theirs = deit3_of_timm(of_timm, depth=2, **other)
    arch = {**DeiTIII.arch_zoo[size], 'num_layers': 2}
    model = our_deit3(theirs, arch, int(side), int(name.split('patch')[1][:2]))
    x = torch.randn(1, 3, int(side), int(side))
    with torch.inference_mode():
        expected, given = theirs(x), model(x)
    assert expected.std() > 0.2
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize('name', PUBLISHED[:6])
def test_the_sizes_are_timms(name):
    of_timm, other = known(name)
    with torch.device('meta'):
        theirs = timm.create_model(f'deit3_{of_timm}', **other)
        model = build(dict(type='DeiTIII', arch=name.split('_')[0]))
    given = {k: v for k, v in theirs.state_dict().items() if not k.startswith('head.')}
    assert [v.numel() for v in given.values()] == [v.numel() for v in model.state_dict().values()]
    assert model.patch_size == theirs.patch_embed.patch_size
    assert model.layers[0].attn.num_heads == theirs.blocks[0].attn.num_heads


def test_published_parameters(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'benchmarks')
    from complexity import DEIT3

    for (size, side), (params, _) in DEIT3.items():
        with torch.device('meta'):
            backbone = build(dict(type='DeiTIII', arch=size, img_size=side))
        own = sum(p.numel() for p in backbone.parameters()) + 1000 * (backbone.embed_dims + 1)
        assert own == params, (size, side)


def test_the_documentation_is_right():
    """Its table of sizes, and its example."""
    text = (ROOT / 'docs' / 'deit3.md').read_text()
    rows = re.findall(r'\| `(\w+)`.*? \| (\d+), (\d+), (\d+) \| ([\d.]+)M', text)
    assert {row[0] for row in rows} == DeiTIII.arch_zoo.keys()
    (example,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    values = {}
    exec(example, values)
    with torch.device('meta'):
        assert build(values['model']).backbone.layers[-1].ffn.dropout_layer.drop_prob == 0.05
        for arch, width, layers, heads, params in rows:
            model = build(dict(type='DeiTIII', arch=arch))
            own = sum(p.numel() for p in model.parameters()) + 1000 * (model.embed_dims + 1)
            assert f'{own / 1e6:.2f}' == params
            assert (int(width), int(layers)) == (model.embed_dims, model.num_layers)
            assert int(heads) == model.layers[0].attn.num_heads


def test_gradients_equal_timm():
    """Of every parameter, through a last layer that leaves out the patches."""
    theirs = deit3_of_timm().double()
    model = our_deit3(theirs).train()
    theirs = copy.deepcopy(theirs)  # of its own gradients
    x = images().double()
    for out in (model.head.layers.head(model.backbone(x)[0]), theirs(x)):
        out.square().sum().backward()
    model_grads = [p.grad for p in model.parameters()]
    assert len(model_grads) == len(list(theirs.parameters()))
    for grad, p in zip(model_grads, theirs.parameters()):
        assert p.grad.abs().max() > 0
        torch.testing.assert_close(grad, p.grad)


def test_the_last_layer_without_patches_is_the_same():
    short, whole = tiny(drop_path_rate=0.5), tiny(drop_path_rate=0.5, out_type='raw')
    whole.load_state_dict(each_matters(short).state_dict())
    x, outs = torch.randn(8, 3, 32, 32), []
    for model in (short, whole):
        torch.manual_seed(0)
        outs.append(model.train()(x)[0])
    torch.testing.assert_close(outs[0], outs[1][:, 0])


@pytest.mark.parametrize('drop', [0.0, 0.3])
def test_attention_with_layer_scale_is_mmpretrains_to_the_bit(drop):
    path = dict(type='DropPath', drop_prob=drop)
    theirs = MultiheadAttention(32, 4, proj_drop=drop, dropout_layer=path, layer_scale_init_value=0.3)
    x, outs = torch.randn(3, 17, 32), []
    for attn in (theirs, Attention(copy.deepcopy(theirs))):
        torch.manual_seed(1)
        outs.append(attn.train()(x))
    assert torch.equal(*outs)


def test_mmpretrains_deit3_is_wrong():
    """It normalises what enters the MLP by the first norm of the layer.

    Once this fails, mmpretrain has mended it, and docs/deit3.md and DeiTIII's docstring need not say so."""
    theirs = deit3_of_timm()
    model = our_deit3(theirs)
    with torch.device('meta'):
        zoo = build(
            dict(
                type='ImageClassifier',
                backbone=dict(type='DeiT3', arch=ARCH, img_size=32, patch_size=8),
                head=dict(type='VisionTransformerClsHead', num_classes=5, in_channels=32),
            )
        )
    zoo.load_state_dict(model.state_dict(), assign=True)
    x = images()
    torch.testing.assert_close(model(x), theirs(x), atol=1e-5, rtol=0)
    assert (zoo.eval()(x) - theirs(x)).abs().max() > 0.05
    for layer in zoo.backbone.layers:
        layer.ln1.forward = Alternating(layer.ln1, layer.ln2)
    torch.testing.assert_close(zoo(x), theirs(x), atol=1e-5, rtol=0)


class Alternating:
    """The first norm, then the second."""

    def __init__(self, *norms):
        self.forwards = [copy.copy(norm).forward for norm in norms]

    def __call__(self, x):
        self.forwards.reverse()
        return self.forwards[1](x)


def test_names_of_mmpretrain_stay_what_they_are():
    assert MODELS.get('DeiT3') is DeiT3 and MODELS.get('DeiTIII') is DeiTIII


def test_initialisation_is_the_references():
    model = build(dict(type='DeiTIII', arch='tiny'))
    before = model.pos_embed.clone()
    for drawn in (model, model.init_weights() or model):
        for name, p in drawn.named_parameters():
            if 'gamma' in name:
                assert (p == 1e-4).all() and p.shape == (192,) and p.requires_grad, name
            elif name.endswith('bias') and 'patch_embed' not in name:
                assert (p == 0).all(), name
            elif 'ln' in name:
                assert (p == 1).all(), name
            elif 'patch_embed' in name:  # torch's: uniform in 1/sqrt(fan in)
                bound = (3 * 16 * 16) ** -0.5
                assert p.abs().max() <= bound and (p.ndim == 1 or abs(p.std() - bound / 3**0.5) < 2e-3), name
            else:
                assert abs(p.std() - 0.02) < 3e-3 and abs(p.mean()) < 4e-3 and p.abs().max() < 2, name
    assert not torch.equal(before, model.pos_embed)  # drawn anew
    assert sum('gamma' in name for name, _ in model.named_parameters()) == 24


@pytest.mark.parametrize('cfgs', [{}, [{}] * 3, dict(drop_rate=0.0)])
def test_drop_path_is_the_same_in_every_layer(cfgs):
    model = tiny(drop_path_rate=0.2, layer_cfgs=cfgs)
    assert [p.drop_prob for paths in model._paths for p in paths] == [0.2] * 6
    assert [len(paths) for paths in model._paths] == [2] * 3


@pytest.mark.parametrize('distilled', [False, True])
def test_out_types(distilled):
    model = each_matters(tiny(distilled=distilled, out_type='raw')).eval()
    assert model.pos_embed.shape == (1, 16, 32)
    x = torch.randn(2, 3, 32, 48)
    (raw,) = model(x)
    extra = 1 + distilled
    assert raw.shape == (2, extra + 24, 32)
    model.out_type = 'featmap'
    torch.testing.assert_close(model(x)[0][:, :, 1, 2], raw[:, extra + 8])
    model.out_type = 'cls_token'
    tokens = model(x)[0]
    for i, token in enumerate(tokens if distilled else [tokens]):
        torch.testing.assert_close(token, raw[:, i])
    assert tiny(distilled=distilled, out_type='avg_featmap')(x)[0].shape == (2, 32)


def test_other_sizes_use_interpolated_positions():
    model = each_matters(tiny()).eval()
    grid = model.pos_embed.reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    grid = nn.functional.interpolate(grid, size=(8, 5), mode='bicubic', align_corners=False)
    expected = tiny(img_size=(64, 40)).eval()
    expected.load_state_dict({**model.state_dict(), 'pos_embed': grid.flatten(2).transpose(1, 2)})
    x = torch.randn(1, 3, 64, 40)
    torch.testing.assert_close(model(x), expected(x))


def test_what_fills_no_patch_is_cut_off_as_timm_does():
    """As the reference trains the huge one, on images of 160 with patches of 14."""
    theirs = deit3_of_timm(**{**SMALL_DEIT3, 'img_size': 160, 'patch_size': 14})
    model = our_deit3(theirs, img_size=160, patch_size=14, patch_cfg=dict(padding=0))
    assert model.backbone.patch_resolution == (11, 11)
    x = images(160)
    torch.testing.assert_close(model(x), theirs(x), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r'img_size \(160, 160\).*\(14, 14\): .*padding=0'):
        our_deit3(img_size=160, patch_size=14)


@pytest.mark.parametrize('change', [dict(with_cp=True), dict(fused_attn=False)])
def test_options_that_change_no_gradient(change):
    one, other = each_matters(tiny()), tiny(**change)
    other.load_state_dict(one.state_dict())
    x = images()
    for model in (one, other):
        model.train()(x)[0].square().sum().backward()
    for p, q in zip(one.parameters(), other.parameters()):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=1e-4)


def test_frozen_stages_freeze_layer_scale():
    model = tiny(frozen_stages=1)
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    prefixes = ('cls_token', 'pos_embed', 'patch_embed', 'layers.0.')
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(prefixes)}
    assert 'layers.0.ffn.gamma2.weight' in frozen


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(arch='giant'), "'giant' is unknown.*'base', 'huge', 'large', 'medium', 'small', 'tiny'"),
        (dict(layer_scale_init_value=0.0), 'layer_scale_init_value=0.0 is not above 0: .* DeiT'),
        (dict(layer_scale_init_value=None), 'layer_scale_init_value=None is not above 0: .* DeiT'),
        (dict(layer_cfgs=[{}] * 2), 'layer_cfgs has 2 entries, there are 3 layers'),
        (dict(type='DeiT', layer_cfgs=[{}] * 4), 'layer_cfgs has 4 entries, there are 3 layers'),
        (dict(drop_path_rate=1.0), r'1.0 is not in \[0, 1\)'),
        (dict(arch='huge', patch_size=None), r'img_size \(32, 32\).*patch_size \(14, 14\)'),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        tiny(**kwargs)
