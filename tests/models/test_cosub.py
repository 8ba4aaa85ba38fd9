"""Binary cross-entropy and co-training, against timm and formulas in float64."""

import math

import pytest
import torch
from conftest import ARCH, build
from mmpretrain.structures import DataSample
from timm.loss import BinaryCrossEntropy

from deit_plugin.draws import Iteration, set_iteration

K = 5


def loss(**kwargs):
    return build(dict(type='BinaryCrossEntropyLoss', **kwargs))


def by_hand(logits, targets):
    """The mean of -(y log s + (1 - y) log(1 - s))."""
    pairs = [(z, y) for row, of_row in zip(logits.tolist(), targets.tolist()) for z, y in zip(row, of_row)]
    s = [(1 / (1 + math.exp(-z)), y) for z, y in pairs]
    return -sum(y * math.log(p) + (1 - y) * math.log(1 - p) for p, y in s) / len(s)


def test_mixed_labels_count_fully():
    logits = torch.randn(3, K, dtype=torch.float64)
    mixed = torch.tensor([[0.3, 0, 0, 0.7, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1e-3, 1 - 1e-3]]).double()
    given = loss()(logits, mixed, avg_factor=3)
    assert given.item() == pytest.approx(by_hand(logits, mixed.gt(0).double()), rel=1e-12)
    assert torch.equal(given, BinaryCrossEntropy(0, 0.0)(logits, mixed))
    assert loss(target_threshold=None)(logits, mixed).item() == pytest.approx(
        by_hand(logits, mixed), rel=1e-12
    )


def test_indices_are_smoothed_as_timm_does():
    logits, label = torch.randn(4, K), torch.tensor([0, 3, 4, 1])
    own = loss(target_threshold=None, smoothing=0.1)(logits, label)
    assert torch.equal(own, BinaryCrossEntropy(0.1)(logits, label))
    one_hot = torch.nn.functional.one_hot(label, K).double()
    assert loss()(logits.double(), label).item() == pytest.approx(by_hand(logits, one_hot), rel=1e-6)


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(smoothing=1), r'smoothing=1 is not in \[0, 1\)'),
        (dict(target_threshold=2), r'target_threshold=2 is not in \[0, 1\)'),
        (dict(smoothing=0.1), 'smoothing=0.1 makes every class a target.*set target_threshold=None'),
    ],
)
def test_a_loss_of_all_classes_or_none_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        loss(**wrong)


def cosub(**kwargs):
    backbone = dict(type='DeiTIII', arch=ARCH, img_size=32, patch_size=8, **{'drop_path_rate': 0.5, **kwargs})
    of_labels = dict(type='BinaryCrossEntropyLoss', target_threshold=None)
    head = dict(type='DeiTHead', num_classes=K, in_channels=32, loss=of_labels)
    model = build(dict(type='CosubClassifier', backbone=backbone, head=head))
    model.init_weights()
    return model.double().train()


@pytest.fixture
def batch():
    scores = torch.rand(6, K).double()
    samples = [DataSample().set_gt_score(row / row.sum()) for row in scores]
    return torch.randn(6, 3, 32, 32).double(), samples


def test_loss_and_gradients_are_the_formulas(batch):
    images, samples = batch
    model = cosub()
    torch.manual_seed(1)
    given = model.loss(images, samples)
    sum(given.values()).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    torch.manual_seed(1)
    logits = [model(images), model(images)]  # in training mode
    assert not torch.allclose(*logits)
    targets = torch.stack([sample.gt_score for sample in samples])
    both = [z.detach().sigmoid() for z in logits]
    pairs = [(logits[0], targets), (logits[1], targets), (logits[0], both[1]), (logits[1], both[0])]
    parts = [by_hand(*pair) for pair in pairs]
    assert given['loss_cls'].item() == pytest.approx(sum(parts[:2]) / 4, rel=1e-9)
    assert given['loss_cosub'].item() == pytest.approx(sum(parts[2:]) / 4, rel=1e-9)
    # The derivative of each pair by its logits is (s - y) / (B K).
    factors = [(z.sigmoid() - y) / z.numel() / 4 for z, y in pairs]
    slopes = factors[0] + factors[2], factors[1] + factors[3]
    expected = torch.autograd.grad(logits, list(model.parameters()), [slope.detach() for slope in slopes])
    for own, other in zip(gradients, expected):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-12)


def test_the_submodels_of_an_iteration_differ_and_come_back(batch):
    model = cosub()
    drawn = []
    for processes in (range(2), range(2), range(1, 2)):
        set_iteration(Iteration(seed=0, step=3, processes=processes, batch_size=3))
        try:
            part = batch[0][3 * processes[0] :]
            drawn.append([model(part), model(part)])
        finally:
            set_iteration(None)
    first, again, alone = drawn
    assert not torch.allclose(first[0], first[1])
    for own, same, of_process in zip(first, again, alone):
        assert torch.equal(own, same)
        torch.testing.assert_close(own[3:], of_process)


def test_evaluation_is_of_the_whole_model(batch):
    model = cosub().eval()
    assert torch.equal(model(batch[0]), model(batch[0]))
    assert len(model.predict(batch[0])) == 6


@pytest.mark.parametrize('same', [dict(drop_path_rate=0.0), dict(frozen_stages=3)])
def test_without_drop_path_there_are_no_two(same):
    with pytest.raises(ValueError, match='nothing of `model.backbone` drops.*set drop_path_rate above 0'):
        cosub(**same)


def test_drop_path_of_some_layers_is_enough():
    rates = [dict(drop_path_rate=rate) for rate in (0.0, 0.0, 0.3)]
    assert cosub(drop_path_rate=0.0, layer_cfgs=rates).with_head


def test_two_classifiers_are_refused():
    backbone = dict(type='DeiTIII', arch=ARCH, img_size=32, distilled=True, drop_path_rate=0.5, patch_size=8)
    head = dict(type='DeiTDualHead', num_classes=K, in_channels=32)
    with pytest.raises(ValueError, match='DeiTDualHead has two: take'):
        build(dict(type='CosubClassifier', backbone=backbone, head=head))
