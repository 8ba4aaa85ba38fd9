"""What tells one run's labels from another's."""

import copy
import json
import os

import numpy as np
import pytest
from mmengine.dataset import BaseDataset, ConcatDataset

from deit_plugin.teacher_cache.fingerprint import dataset_listing_hash, fingerprint_difference

FINGERPRINT = dict(
    data=dict(listing='a' * 64, size=12),
    pipeline=[dict(type='Crop', scale=(0.08, 1.0)), dict(type='Flip')],
    seed=0,
)


def test_fingerprint_difference():
    changed = copy.deepcopy(FINGERPRINT)
    assert fingerprint_difference(FINGERPRINT, changed) == []
    # JSON has no tuples, and orders nothing.
    stored = json.loads(json.dumps(FINGERPRINT, sort_keys=True))
    assert fingerprint_difference(stored, FINGERPRINT) == []
    changed['pipeline'][0]['scale'] = (0.1, 1.0)
    changed['pipeline'].append(dict(type='Erase'))
    changed['data'] = {}
    changed['data']['listing'] = 'a' * 50 + 'b' * 50
    assert fingerprint_difference(FINGERPRINT, changed) == [
        'data.listing: ...' + 'a' * 34 + '" -> ...' + 'a' * 20 + 'b' * 30 + '...',
        'data.size: 12 -> absent',
        'pipeline.0.scale.0: 0.08 -> 0.1',
        'pipeline.2.type: absent -> "Erase"',
    ]
    assert fingerprint_difference(dict(a=[]), dict(a={})) == ['a: [] -> {}']
    many = fingerprint_difference({}, {str(i): i for i in range(30)})
    assert len(many) == 11 and many[-1] == 'and 20 more'


class Listed(BaseDataset):
    def __init__(self, items, **kwargs):
        self.items = items
        super().__init__(**kwargs)

    def load_data_list(self):
        return [
            dict(img_path=os.path.join(self.data_prefix['img_path'], name), gt_label=label)
            for name, label in self.items
        ]


ITEMS = [('n01/a.jpg', 0), ('n01/b.jpg', 0), ('n02/a.jpg', 1)]


def listing(items=ITEMS, root='/data/in', prefix='train', **kwargs):
    return Listed(items, data_root=root, data_prefix=dict(img_path=prefix), **kwargs)


def test_the_root_of_a_dataset_does_not_count():
    expected = dataset_listing_hash(listing())
    assert len(expected) == 64
    for same in (
        listing(root='/elsewhere/imagenet'),
        listing(root='relative'),
        listing(serialize_data=False),
        listing(root='/data/in/train', prefix=''),
        listing(prefix='train/'),
        listing(lazy_init=True),
        listing([(name, np.int64(label)) for name, label in ITEMS]),
    ):
        assert dataset_listing_hash(same) == expected
    several = [('n01/a.jpg', [0, 1])]
    assert dataset_listing_hash(listing(several)) == dataset_listing_hash(
        listing([('n01/a.jpg', np.array([0, 1]))])
    )
    # Neither does the name of a folder with the images right inside.
    flat = [('a.jpg', 0), ('b.jpg', 1)]
    assert dataset_listing_hash(listing(flat, root='/x', prefix='')) == dataset_listing_hash(
        listing(flat, root='/y', prefix='')
    )


@pytest.mark.parametrize(
    'items',
    [
        ITEMS[::-1],
        ITEMS[:2],
        [*ITEMS[:2], ('n02/a.jpg', 2)],
        [*ITEMS[:2], ('n02/c.jpg', 1)],
        [*ITEMS[:2], ('n03/a.jpg', 1)],
        [('x/' + name, label) for name, label in ITEMS],
        [('n01/a.jpg', [0]), *ITEMS[1:]],
    ],
)
def test_the_list_of_a_dataset_counts(items):
    assert dataset_listing_hash(listing(items)) != dataset_listing_hash(listing())


def test_a_dataset_of_datasets():

    def both(root, items=ITEMS):
        return ConcatDataset(
            [
                listing(items, root=root),
                listing(root=root, prefix='more'),
            ]
        )

    expected = dataset_listing_hash(both('/data/in'))
    assert dataset_listing_hash(both('/elsewhere')) == expected
    assert dataset_listing_hash(both('/data/in', ITEMS[::-1])) != expected


def test_a_dataset_without_files():

    class Images(BaseDataset):
        def load_data_list(self):
            return [dict(img=image, gt_label=0) for image in self.images]

    def images(*values, shape=(2, 2, 3)):
        Images.images = [np.full(shape, value, np.uint8) for value in values]
        return dataset_listing_hash(Images())

    assert images(1, 2) == images(1, 2)
    others = images(2, 1), images(1, 3), images(1, 2, shape=(3, 2, 2))
    assert images(1, 2) not in others


def test_a_dataset_that_lists_nothing():
    with pytest.raises(TypeError, match='list'):
        dataset_listing_hash([0, 1])
    with pytest.raises(TypeError, match="neither img_path nor img, but .*'x'"):
        dataset = BaseDataset(lazy_init=True)
        dataset.load_data_list = lambda: [dict(x=1)]
        dataset_listing_hash(dataset)
