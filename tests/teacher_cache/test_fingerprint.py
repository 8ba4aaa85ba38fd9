"""What tells one run's labels from another's."""

import copy
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.optim import OptimWrapper
from torch.utils.data import DataLoader

from deit_plugin import virtual_processes
from deit_plugin.datasets import LoadCached, LoadRandomResizedCrop
from deit_plugin.teacher_cache.fingerprint import (
    dataset_listing_hash,
    fingerprint_difference,
    run_fingerprint,
)
from deit_plugin.teacher_cache.weights import at_hand, teacher_weights
from deit_plugin.virtual_processes import VirtualProcesses

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


def built(step):
    return dict(transforms=SimpleNamespace(transforms=[step]))


def fingerprint(batch=4, teacher=None, pipeline=None, transforms=None, loader=None, wrapper=None, **dataset):
    """Of a training on twelve images by two virtual processes of two."""
    data = listing(ITEMS * 4)
    data.__dict__.update(dataset)
    data.pipeline = transforms or data.pipeline
    virtual = VirtualProcesses(2, 2)
    samples = range(6 * len(virtual.carried))
    cfg = dict(
        train_dataloader=dict(
            dataset=dict(type='Listed', pipeline=pipeline or [dict(type='LoadRandomResizedCrop')]),
            sampler=dict(type='RepeatedAugmentSampler', processes=2, batch_size=2, seed=5),
            batch_size=batch,
            **loader or {},
        ),
        model=dict(data_preprocessor=dict(erasing=0.25), train_cfg=dict(augments=[])),
    )
    teacher = SimpleNamespace(cfg=teacher or dict(type='A', pretrained=True), num_classes=3)
    runner = SimpleNamespace(
        cfg=Config(cfg),
        train_dataloader=DataLoader(data, batch, sampler=samples),
        optim_wrapper=wrapper or object(),
    )
    model = SimpleNamespace(
        teacher=teacher,
        teacher_labels=SimpleNamespace(teacher=teacher, topk=0, tau=1.0, num_classes=3),
        parameters=lambda: iter([torch.zeros(1)]),
    )
    found = run_fingerprint(runner, model, 0, virtual, asked=False)
    assert json.loads(json.dumps(found)) == found
    return found


def test_the_hardware_does_not_count(monkeypatch):
    expected = fingerprint()
    assert expected['recipe']['steps'] == 3 and expected['recipe']['sampler'] == dict(
        type='RepeatedAugmentSampler'
    )
    assert fingerprint(batch=2) == fingerprint(loader=dict(num_workers=5, pin_memory=True)) == expected
    monkeypatch.setattr(virtual_processes, 'get_dist_info', lambda: (1, 2))
    assert fingerprint(batch=2) == expected


def test_how_images_are_read_and_computed_is_no_part_of_the_recipe(monkeypatch):
    expected = fingerprint()
    step = LoadRandomResizedCrop(32, decoder='pillow', on_device='resize')
    found = fingerprint(**built(step), wrapper=OptimWrapper.__new__(OptimWrapper))
    assert found['recipe'] == expected['recipe']
    assert found['recorded_on']['decoder'] == ['pillow'] and found['recorded_on']['on_device'] == ['resize']
    assert found['recorded_on']['precision'] == 'OptimWrapper None'
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'NO AVX')
    assert fingerprint_difference(expected, fingerprint())[0].endswith('-> "NO AVX"')


def cached(folder, side):
    folder.mkdir()
    header = dict(format=1, side=side, images=12, shards=1, name_parts=2)
    (folder / 'header.json').write_text(json.dumps(header))
    steps = [dict(type='LoadCached', path=str(folder)), dict(type='LoadRandomResizedCrop', decoder='opencv')]
    return fingerprint(pipeline=steps)


def test_of_cached_images_the_side_counts_and_not_the_path(tmp_path):
    found = cached(tmp_path / 'a', 256)
    assert found == cached(tmp_path / 'b', 256)
    assert found['recipe']['pipeline'][0] == [
        dict(type='LoadCached', side=256),
        dict(type='LoadRandomResizedCrop'),
    ]
    (difference,) = fingerprint_difference(found, cached(tmp_path / 'c', 320))
    assert difference.endswith('side: 256 -> 320')
    step = LoadCached.__new__(LoadCached)
    (tmp_path / 'a.jpg').write_bytes(b'1')
    files = dict(get_data_info=lambda i: dict(img_path=str(tmp_path / 'a.jpg'), gt_label=0))
    sizes = fingerprint(**files)['recipe']['dataset']['file_sizes']
    assert sizes == [1] * 12
    # Where a cache stands for them, the files need not be there.
    found = fingerprint(**files, **built(step))
    assert found['recipe']['dataset']['file_sizes'] == []


def test_paths_of_a_machine_are_left_out(tmp_path):
    texts = []
    for folder in (tmp_path / 'a', tmp_path / 'b'):
        folder.mkdir()
        torch.save(dict(weight=torch.ones(1)), folder / 'w.pth')
        checkpoint = str(folder / 'w.pth')
        part = dict(type='A', init_cfg=dict(type='Pretrained', checkpoint=checkpoint), words=checkpoint)
        texts.append(
            fingerprint(teacher=dict(type='B', members=[part, dict(type='A', checkpoint=checkpoint)]))
        )
    assert texts[0] == texts[1] and str(tmp_path) not in str(texts)
    weights = texts[0]['recipe']['teacher_weights']
    assert [w['name'] for w in weights] == ['w.pth'] * 2 and len(weights[0]['sha256']) == 64


def test_every_part_of_a_teacher_has_weights(tmp_path):
    members = [dict(type='A', checkpoint=str(tmp_path / 'w.pth')), dict(type='A')]
    with pytest.raises(ValueError, match='random weights'):
        teacher_weights(dict(type='B', members=members), asked=False)
    teacher = dict(type='B', members=members[:1])
    assert teacher_weights(teacher, asked=False) == [dict(name='w.pth', sha256=None)]
    assert not at_hand(teacher) and not at_hand(dict(type='A', pretrained=True))
    with pytest.raises(FileNotFoundError, match='w.pth'):
        teacher_weights(teacher, asked=True)
    (tmp_path / 'w.pth').touch()
    assert at_hand(teacher)
