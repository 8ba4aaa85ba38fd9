"""Mixing with the indices sent, against mmpretrain's alone."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import BATCH_AUGMENTS

from deit_plugin.models import mixing
from deit_plugin.models.data_preprocessor import DeiTDataPreprocessor
from deit_plugin.models.sending import send_all

MIXES = [
    dict(type='Mixup', alpha=0.8),
    dict(type='CutMix', alpha=1.0),
    dict(type='CutMix', alpha=1.0, cutmix_minmax=[0.2, 0.8]),
    dict(type='ResizeMix', alpha=1.0),
]


def seed_all(seed=0):
    np.random.seed(seed)
    torch.manual_seed(seed)


def states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()


@pytest.mark.parametrize('how', MIXES)
def test_results_are_mmpretrains(how):
    """To the bit, for the same seed."""
    mixes = dict(augments=dict(how))
    preprocessor = DeiTDataPreprocessor(num_classes=10, batch_augments=mixes, normalized_input=True)
    images, labels = torch.rand(10, 3, 16, 16), torch.arange(10)
    peer = BATCH_AUGMENTS.build(dict(how))
    seed_all()
    np.random.choice(1)  # which of the augmentations
    expected, scores = peer(images.clone(), torch.eye(10))
    after = states()
    seed_all()
    mixed = preprocessor(dict(inputs=images.clone(), labels=labels), training=True)
    assert torch.equal(mixed['inputs'], expected)
    assert torch.equal(torch.stack([sample.gt_score for sample in mixed['data_samples']]), scores)
    assert states() == after


@pytest.mark.parametrize('how', MIXES)
def test_indices_are_sent_as_drawn(how, monkeypatch):
    """The permutation that mmpretrain draws on the CPU reaches another device without its blocking copy."""
    sent, send = [], mixing.send
    monkeypatch.setattr(mixing, 'send', lambda index, device: sent.append(index) or send(index, device))
    peer = BATCH_AUGMENTS.build(dict(how))
    seed_all()
    peer(torch.rand(10, 3, 16, 16), torch.eye(10))
    after, indices = states(), []
    randperm = torch.randperm
    monkeypatch.setattr(torch, 'randperm', lambda n: indices.append(randperm(n)) or indices[-1])
    seed_all()
    with mixing.SentIndices():
        peer(torch.rand(10, 3, 16, 16).to('meta'), torch.eye(10).to('meta'))
    assert states() == after
    assert len(sent) == 2 and all(torch.equal(index, indices[0]) for index in sent)


def test_other_indices_stay(monkeypatch):
    """Numbers, slices, masks, and all that is on the CPU."""
    monkeypatch.setattr(mixing, 'send', None)
    on_cpu, on_device = torch.arange(12).view(3, 4), torch.empty(3, 4, device='meta')
    with mixing.SentIndices():
        assert on_cpu[torch.tensor([2, 0])].tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
        assert on_device[1, :2].shape == (2,)
        assert on_device[torch.tensor(1)].shape == (4,)
        assert on_device[:, None].shape == (3, 1, 4)
        assert on_device[on_device.new_zeros(5, dtype=torch.int64)].shape == (5, 4)


def test_what_is_sent_keeps_its_form():
    tensors = [
        torch.arange(3, dtype=torch.uint8),
        torch.rand(2, 5, dtype=torch.float64),
        torch.empty(0, 4),
        torch.arange(6, dtype=torch.int32).view(2, 3).T,
        torch.rand(3)[None],
    ]
    sent = send_all(tensors, torch.device('meta'))
    assert [(t.dtype, t.shape) for t in sent] == [(t.dtype, t.shape) for t in tensors]


@pytest.mark.gpu
@pytest.mark.parametrize('how', MIXES)
def test_cuda(how):
    """The same draws and results as on the CPU, and no wait for the device."""
    kwargs = dict(num_classes=10, erasing=0.25, rand_augment={}, batch_augments=dict(augments=dict(how)))
    batch = dict(inputs=torch.randint(256, (10, 3, 16, 16), dtype=torch.uint8), labels=torch.arange(10))
    preprocessor = DeiTDataPreprocessor(**kwargs)
    scores = []
    for device in 'cpu', 'cuda':
        preprocessor.to(device)
        seed_all()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode('error' if device == 'cuda' else 'default')
        try:
            data = preprocessor({k: v.pin_memory() for k, v in batch.items()}, training=True)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        scores.append(torch.stack([sample.gt_score for sample in data['data_samples']]).cpu())
    assert torch.equal(*scores)
