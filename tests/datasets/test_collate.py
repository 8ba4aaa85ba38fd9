"""What the model gets is the same, whether labels or samples are sent."""

import copy

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from deit_plugin.datasets import labels_collate
from deit_plugin.draws import seed_cpu


def packed(labels, **fields):
    samples = []
    for i, label in enumerate(labels):
        sample = DataSample(metainfo=dict(img_path=f'{i}.png', **fields))
        if label is not None:
            sample.set_gt_label(label)
        image = torch.from_numpy(np.random.RandomState(i).randint(0, 256, (3, 16, 16), dtype=np.uint8))
        samples.append(dict(inputs=image, data_samples=sample))
    return samples


MIXUP = dict(augments=[dict(type='Mixup', alpha=0.8)])


@pytest.mark.parametrize('more', [dict(), dict(batch_augments=MIXUP), dict(to_onehot=True)])
@pytest.mark.parametrize('training', [True, False])
def test_the_model_gets_the_same(more, training):
    preprocessor = MODELS.build(
        dict(
            type='mmpretrain.DeiTDataPreprocessor',
            num_classes=5,
            mean=[120.0] * 3,
            std=[60.0] * 3,
            rand_augment=dict(),
            erasing=0.5,
            **more,
        )
    )
    given = []
    for collate in (default_collate, labels_collate):
        seed_cpu('draws')
        given.append(preprocessor(collate(packed([3, 0, 4, 1])), training=training))
    assert torch.equal(given[0]['inputs'], given[1]['inputs'])
    for field in ('gt_label', 'gt_score') if more else ('gt_label',):
        a, b = ([sample.get(field) for sample in batch['data_samples']] for batch in given)
        assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(a, b)), field
    assert more or 'gt_score' not in given[1]['data_samples'][0]


def test_one_hot_labels_need_the_number_of_classes():
    preprocessor = MODELS.build(dict(type='mmpretrain.DeiTDataPreprocessor', to_onehot=True))
    with pytest.raises(ValueError, match='data_preprocessor.num_classes'):
        preprocessor(labels_collate(packed([1, 2])), training=True)


def test_two_tensors_are_sent():
    batch = labels_collate(packed([3, 0, 4]))
    assert batch.keys() == {'inputs', 'labels'}
    assert batch['inputs'].shape == (3, 3, 16, 16) and batch['inputs'].dtype == torch.uint8
    assert batch['labels'].tolist() == [3, 0, 4]


def more(samples, change):
    samples = copy.deepcopy(samples)
    change(samples)
    return samples


@pytest.mark.parametrize(
    'samples',
    [
        packed([[1, 2], 0]),
        packed([1, None]),
        more(packed([1, 2]), lambda s: s[0]['data_samples'].set_gt_score(torch.rand(5))),
        more(packed([1, 2]), lambda s: s[1]['data_samples'].set_mask(torch.ones(2, 2))),
        more(packed([1, 2]), lambda s: [sample.update(more=1) for sample in s]),
    ],
)
def test_what_is_more_than_a_label_is_sent_as_by_mmengine(samples):
    batch, expected = labels_collate(samples), default_collate(samples)
    assert batch.keys() == expected.keys() and 'labels' not in batch
    assert batch['data_samples'] == expected['data_samples']
