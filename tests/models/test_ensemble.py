"""Several teachers as one, beside the mean of their probabilities in float64."""

import copy

import pytest
import torch
from conftest import build, shuffle_weights, teacher_cfg
from mmpretrain.structures import DataSample
from students import LEVIT

from deit_plugin.models.ensemble import EnsembleClassifier
from deit_plugin.models.teacher import Teacher

STUDENT = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], to_rgb=True)
NORMS = [dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0]), dict(mean=[0.0] * 3, std=[255.0] * 3)]


@pytest.fixture
def members(tmp_path):
    """Three: normalised as the student, otherwise, and for BGR."""
    found = []
    for i, norm in enumerate([*NORMS, dict(NORMS[1], to_rgb=False)]):
        cfg = dict(teacher_cfg(), data_preprocessor=norm)
        torch.save(shuffle_weights(build(cfg)).state_dict(), tmp_path / f'{i}.pth')
        found.append(dict(cfg, checkpoint=str(tmp_path / f'{i}.pth')))
    return found


def ensemble(members, **changes):
    return build(dict(dict(type='EnsembleClassifier', members=members, data_preprocessor=STUDENT), **changes))


def mean_of_probabilities(members, images):
    """In float64, from the levels of the pixels (B, 3, H, W)."""
    probs = []
    for cfg in members:
        model = build({k: v for k, v in cfg.items() if k != 'checkpoint'})
        model.load_state_dict(torch.load(cfg['checkpoint']))
        norm = cfg['data_preprocessor']
        pixels = images if norm.get('to_rgb', True) else images.flip(1)
        mean, std = (torch.tensor(norm[name]).double().view(3, 1, 1) for name in ('mean', 'std'))
        probs.append(model.double().eval()((pixels - mean) / std).softmax(1))
    return torch.stack(probs).mean(0)


def levels():
    return torch.randint(0, 256, (4, 3, 32, 32)).double()


def normalised(images):
    mean, std = (torch.tensor(STUDENT[name]).double().view(3, 1, 1) for name in ('mean', 'std'))
    return ((images - mean) / std).float()


def test_it_gives_the_mean_of_the_probabilities(members):
    model, images = ensemble(members).train(), levels()
    expected = mean_of_probabilities(members, images)
    apart = mean_of_probabilities(members[:1], images)
    assert (expected - apart).abs().max() > 0.01
    for found in (model(normalised(images)), copy.deepcopy(model)(normalised(images))):
        torch.testing.assert_close(found.exp().double(), expected, atol=1e-5, rtol=1e-4)
        assert not found.requires_grad
    samples = model(normalised(images), [DataSample() for _ in images], mode='predict')
    assert [int(sample.pred_label) for sample in samples] == expected.argmax(1).tolist()
    torch.testing.assert_close(samples[0].pred_score.double(), expected[0], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="mode='loss'"):
        model(normalised(images), mode='loss')


@pytest.mark.parametrize('own', [dict(data_preprocessor=NORMS[1]), dict()])
def test_as_a_teacher_it_may_be_normalised_otherwise_than_the_student(own, members):
    cfg = dict(type='EnsembleClassifier', members=members, **own)
    student = build(dict(type='ClsDataPreprocessor', **STUDENT))
    images = levels()
    found = Teacher(cfg, student)(normalised(images)).softmax(1)
    torch.testing.assert_close(found.double(), mean_of_probabilities(members, images), atol=1e-5, rtol=1e-4)


def test_logits_of_any_size(members):
    """As of half precision, where a softmax has zeros, whose logarithm is none."""
    model = ensemble(members[:2])
    logits = [torch.tensor([[0.0, -400.0]]), torch.tensor([[-300.0, 0.0]])]
    model._teachers = [lambda images, part=part: part for part in logits]
    for teacher in model._teachers:
        teacher.model = None
    expected = torch.stack([part.double().softmax(1) for part in logits]).mean(0).log()
    torch.testing.assert_close(model(torch.zeros(1)).double(), expected)


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(members=[]), r'needs members.*has \[\]'),
        (dict(members=None), 'needs members.*has None'),
        (dict(data_preprocessor=None), 'normalised.*not to None'),
    ],
)
def test_what_is_missing(change, message, members):
    with pytest.raises(ValueError, match=message):
        ensemble(**{**dict(members=members), **change})


def test_members_of_other_classes(members):
    cfgs = [members[0], dict(teacher_cfg(7), type='TimmClassifier')]
    with pytest.raises(ValueError, match=r'regnety_002 \(members.0\) 5, regnety_002 \(members.1\) 7'):
        ensemble(cfgs)
    del cfgs[1]['num_classes']  # timm's own
    with pytest.raises(ValueError, match=r'\(members.1\) 1000'):
        ensemble(cfgs)
    backbone = dict(LEVIT['backbone'], img_size=32)
    head = dict(type='LeViTClsHead', in_channels=64)  # of 1000, which only the model knows
    cfgs[1] = dict(LEVIT, type='ImageClassifier', backbone=backbone, head=head)
    model = ensemble(cfgs)
    assert isinstance(model, EnsembleClassifier)
    with pytest.raises(ValueError, match=r'\(members.1\) 1000'):
        model(normalised(levels()))
