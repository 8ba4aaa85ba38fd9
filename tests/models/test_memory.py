"""What a training step keeps for the backward pass, counted by tests/benchmarks/memory.py."""

import argparse

import pytest
import torch
from conftest import ROOT
from mmengine.registry import DefaultScope

ARCH = dict(embed_dims=48, num_layers=12, num_heads=3, feedforward_channels=192)


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'benchmarks')
    import memory

    return memory


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_less_is_kept_than_timm_keeps(memory, precision):
    """At the recipe's depth and image size, of a narrow model."""
    args = argparse.Namespace(device='cpu', precision=precision, teacher='resnet10t', compile=False)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        found, _ = memory.lines('tiny', args, dict(arch=ARCH), dict(embed_dim=48, num_heads=3))
    (_, ours), (_, with_cp), (_, timm) = found.values()
    assert ours <= 0.95 * timm
    # With `with_cp` the inputs of 12 layers, one layer, and little else.
    tokens = 198 * 48 * 4
    assert 12 * tokens < with_cp < 0.3 * ours


def test_each_storage_counts_once(memory):
    """Of a product of 4 MiB with itself, and of a weight, nothing but the product's input is kept."""
    x, weight = torch.ones(1024, 1024, requires_grad=True), torch.ones(1024, requires_grad=True)
    assert memory.kept(lambda: (x * x).sum() + (x[0] * weight).sum(), [weight]) == 4 * 2**20


def test_what_fits(memory):
    """8.5 of 10 GiB, 4 of them for the weights."""
    assert memory.fitting(10, 4 * 2**30, 2**30) == 4
    assert memory.fitting(4, 4 * 2**30, 2**30) == 0
