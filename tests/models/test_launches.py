"""What an iteration launches, counted by tests/benchmarks/launches.py."""

import pytest
import torch
from conftest import ROOT


@pytest.fixture
def launches(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'benchmarks')
    import launches

    return launches


def on_meta(*shape):
    return torch.empty(*shape, device='meta')


@pytest.mark.parametrize(
    'function, expected',
    [
        (lambda: torch.tensor([1.0, 2.0], device='meta'), dict(blocking=1)),
        (lambda: on_meta(3).new_tensor([1.0]), dict(blocking=1)),
        (lambda: torch.as_tensor([1.0], device='meta'), dict(blocking=1)),
        (lambda: torch.tensor([1.0]), dict()),
        (lambda: torch.zeros(3).to('meta'), dict(blocking=1, copies=1)),
        (lambda: torch.zeros(3).to('meta', non_blocking=True), dict(copies=1)),
        (lambda: on_meta(3).copy_(torch.zeros(3)), dict(blocking=1, copies=1)),
        (lambda: on_meta(3).copy_(torch.zeros(3), non_blocking=True), dict(copies=1)),
        (lambda: on_meta(3)[torch.tensor([0, 2])], dict(blocking=1, launches=1)),
        (lambda: on_meta(3)[torch.zeros(2, dtype=torch.int64, device='meta')], dict(launches=2)),
        (lambda: on_meta(3) * torch.tensor(2.0), dict(launches=1)),
        (lambda: on_meta(3).sum().item(), dict(reads=1, launches=1)),
        (lambda: on_meta(3, 4).view(12)[2:].add_(1), dict(launches=1)),
        (lambda: torch.rand(3).mul(2).sum().item(), dict()),
    ],
)
def test_kinds(launches, function, expected):
    counts = launches.counted(function)[1]
    assert {kind: n for kind, n in counts.items() if n} == expected


@pytest.mark.parametrize('how', ['Mixup', 'CutMix'])
def test_mmpretrains_mixing_waits_by_itself(launches, how):
    from mmpretrain.registry import BATCH_AUGMENTS

    from deit_plugin.models.mixing import SentIndices

    mix = BATCH_AUGMENTS.build(dict(type=how, alpha=1.0))
    assert launches.counted(mix, on_meta(8, 3, 16, 16), on_meta(8, 10))[1]['blocking'] == 2
    with SentIndices():
        assert launches.counted(mix, on_meta(8, 3, 16, 16), on_meta(8, 10))[1]['blocking'] == 0


def test_an_iteration(launches):
    torch.manual_seed(0)
    with launches.DefaultScope.overwrite_default_scope('mmpretrain'):
        parts = launches.count_parts('deit_tiny_distilled', 256)
    assert not any(counts['reads'] or counts['blocking'] for counts in parts.values())
    assert parts['RandAugment']['launches'] <= 250
    assert parts['RandAugment']['copies'] <= 45
    assert parts['labels, normalising, erasing, mixing']['launches'] <= 20
    assert parts['optimizer']['launches'] <= 6
    assert parts['in all']['launches'] <= 900
