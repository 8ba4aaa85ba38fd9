"""Where the tokens look, against timm's attention of the same weights."""

import numpy as np
import pytest
import timm
import torch
import torch.nn as nn
import torch.nn.functional as F
from conftest import ARCH, build, distilled, shuffle_weights, to_timm
from PIL import Image

from deit_plugin.visualization.attention import attention_maps, token_similarity
from deit_plugin.visualization.figures import attention_figure, png


def pair(is_distilled):
    """A model of ours and timm's of the same weights."""
    cfg = distilled(teacher=None, mode='none')
    if not is_distilled:
        cfg['backbone']['distilled'] = False
        cfg.update(type='ImageClassifier', neck=None)
        del cfg['teacher']
        cfg['head'] = dict(type='DeiTHead', num_classes=5, in_channels=32)
    ours = shuffle_weights(build(cfg)).eval()
    kind = 'deit_tiny_distilled_patch16_224' if is_distilled else 'deit_tiny_patch16_224'
    theirs = timm.create_model(
        kind,
        img_size=32,
        patch_size=8,
        embed_dim=ARCH['embed_dims'],
        depth=ARCH['num_layers'],
        num_heads=ARCH['num_heads'],
        mlp_ratio=2,
        num_classes=5,
    ).eval()
    theirs.load_state_dict(to_timm(ours.state_dict()))
    return ours.backbone, theirs


class Kept(nn.Module):
    """An identity that keeps what it was given."""

    def forward(self, x):
        self.kept = x
        return x


def attention_of(theirs, images):
    """Timm's own attention of each layer, which it computes in full without its fused kernel."""
    for block in theirs.blocks:
        block.attn.fused_attn, block.attn.attn_drop = False, Kept()
    with torch.no_grad():
        theirs.forward_features(images)
    return [block.attn.attn_drop.kept for block in theirs.blocks]


@pytest.mark.parametrize('is_distilled', [True, False])
def test_maps_are_timms(is_distilled):
    ours, theirs = pair(is_distilled)
    images = torch.randn(2, 3, 32, 32)
    expected, tokens = attention_of(theirs, images), 1 + is_distilled
    found = attention_maps(ours, images)
    heads = expected[-1][:, :, :tokens, tokens:].reshape(2, 2, tokens, 4, 4)
    torch.testing.assert_close(found.heads, heads)
    torch.testing.assert_close(found.mean, heads.mean(dim=1))
    # Attention rollout (arXiv 2005.00928): the product of (attention + identity) / 2, the last layer first.
    product = np.eye(16 + tokens)
    for layer in expected:
        product = (layer.mean(dim=1).double().numpy() + np.eye(16 + tokens)) / 2 @ product
    np.testing.assert_allclose(product.sum(axis=-1), 1, atol=1e-6)
    rollout = product[:, :tokens, tokens:].reshape(2, tokens, 4, 4)
    np.testing.assert_allclose(found.rollout, rollout, atol=1e-6)


def test_another_size_than_that_of_training():
    ours, _ = pair(True)
    assert attention_maps(ours, torch.randn(1, 3, 32, 32)).mean.shape == (1, 2, 4, 4)
    cfg = distilled(teacher=None, mode='none')
    cfg['backbone']['img_size'] = (32, 48)
    wide = build(cfg).eval().backbone
    assert attention_maps(wide, torch.randn(1, 3, 32, 48)).mean.shape == (1, 2, 4, 6)


def test_similarity_by_layer():
    """Of what timm's blocks give."""
    ours, theirs = pair(True)
    images, given = torch.randn(2, 3, 32, 32), []
    for block in theirs.blocks:
        block.register_forward_hook(lambda _, inputs, output: given.append(output.detach()))
    with torch.no_grad():
        theirs.forward_features(images)
    expected = [F.cosine_similarity(theirs.cls_token[0, 0], theirs.dist_token[0, 0], dim=0)]
    expected += [F.cosine_similarity(x[:, 0], x[:, 1]).mean() for x in given]
    torch.testing.assert_close(token_similarity(ours, images), torch.stack(expected))


def test_the_model_is_left_as_it_was():
    ours, _ = pair(True)
    images = torch.randn(1, 3, 32, 32)
    before = ours(images)[0]
    attention_maps(ours, images), token_similarity(ours, images)
    assert not any(module._forward_pre_hooks for module in ours.modules())
    for one, other in zip(ours(images)[0], before, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('look', [attention_maps, token_similarity])
def test_refused(look):
    images = torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match='but the backbone is a Linear'):
        look(nn.Linear(1, 1), images)
    with pytest.raises(ValueError, match='in training mode'):
        look(pair(True)[0].train(), images)


def test_one_token_has_no_other():
    with pytest.raises(ValueError, match='Only a distilled DeiT has two tokens'):
        token_similarity(pair(False)[0], torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize('is_distilled', [True, False])
def test_a_picture(is_distilled, tmp_path):
    ours, _ = pair(is_distilled)
    images = torch.randn(1, 3, 32, 32)
    similarity = token_similarity(ours, images) if is_distilled else None
    shown = np.zeros((32, 32, 3), dtype=np.uint8)
    figure = attention_figure(shown, attention_maps(ours, images), similarity)
    titles = [axes.get_title() for part in (figure, *figure.subfigs) for axes in part.axes]
    assert titles.count('rollout over all layers') == 1 + is_distilled and 'head 2' in titles
    (tmp_path / 'a.png').write_bytes(png(figure))
    with Image.open(tmp_path / 'a.png') as image:
        assert image.size[0] > 500
        assert len(image.convert('RGB').getcolors(10**6)) > 100
