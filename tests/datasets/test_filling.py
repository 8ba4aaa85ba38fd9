"""A batch that a worker fills is the one that its samples make."""

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from deit_plugin.datasets import ImageFolder, ImageNet1k, labels_collate
from deit_plugin.datasets.seeded import PlacedSampler, get_placed_items, place_draws
from deit_plugin.virtual_processes import VirtualProcesses

LOAD, PACK = dict(type='LoadRandomResizedCrop', scale=32), dict(type='PackInputs')


@TRANSFORMS.register_module()
class FromMemory(BaseTransform):
    """An image in memory for those of the second class, and a draw before the crop's."""

    def transform(self, results):
        np.random.random()
        if results['gt_label'] == 1:
            results['img'] = np.asarray(Image.open(results['img_path']).convert('RGB'))[..., ::-1]
        return results


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    random = np.random.RandomState(0)
    for label in 'ab':
        (root / 'train' / label).mkdir(parents=True)
        for i in range(6):
            pixels = random.randint(0, 256, (40 + i, 50 - i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / 'train' / label / f'{i}.jpg')
    return root


def imagenet(folder, pipeline=(LOAD, PACK), **kwargs):
    return ImageNet1k(
        data_root=str(folder),
        split='',
        data_prefix='train',
        metainfo=dict(classes=('a', 'b')),
        pipeline=list(pipeline),
        **kwargs,
    )


def image_folder(folder, pipeline=(LOAD, PACK), **kwargs):
    return ImageFolder(data_root=str(folder), data_prefix='train', pipeline=list(pipeline), **kwargs)


def epoch(dataset, size=5, collate='labels_collate', workers=0):
    """The batches of an epoch."""
    loader = Runner.build_dataloader(
        dict(
            dataset=dataset,
            batch_size=size,
            num_workers=workers,
            collate_fn=dict(type=collate),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        seed=3,
    )
    place_draws(loader, 3)
    return list(loader)


def one_by_one(dataset, size=5):
    """The same batches from samples."""
    sampler = PlacedSampler(torch.randperm(len(dataset), generator=torch.Generator().manual_seed(3)), 3)
    samples = get_placed_items(dataset, None, list(sampler))
    return [labels_collate(samples[i : i + size]) for i in range(0, len(samples), size)]


def no_samples(self, index):
    raise AssertionError('a sample')


no_samples.__module__ = 'mmengine'


def same(batches, others):
    assert len(batches) == len(others) > 1
    for batch, other in zip(batches, others):
        assert batch.keys() == other.keys() == {'inputs', 'labels'}
        for name in batch:
            assert torch.equal(batch[name], other[name]) and batch[name].dtype == other[name].dtype


@pytest.mark.parametrize('build', [imagenet, image_folder])
@pytest.mark.parametrize('before', [[], [dict(type='FromMemory')]])
@pytest.mark.parametrize('workers', [0, 2])
def test_a_filled_batch_is_that_of_the_samples(build, before, workers, folder, monkeypatch):
    expected = one_by_one(build(folder, [*before, LOAD, PACK]))
    dataset = build(folder, [*before, LOAD, PACK])
    # Not from samples.
    monkeypatch.setattr(BaseDataset, '__getitem__', no_samples)
    same(epoch(dataset, workers=workers), expected)


def test_a_batch_of_simple_crops_is_filled(folder, monkeypatch):
    pipeline = [dict(type='LoadSimpleRandomCrop', scale=32), PACK]
    expected = one_by_one(imagenet(folder, pipeline))
    dataset = imagenet(folder, pipeline)
    monkeypatch.setattr(BaseDataset, '__getitem__', no_samples)
    same(epoch(dataset), expected)


@pytest.mark.parametrize('build', [imagenet, image_folder])
def test_another_image_stands_for_a_broken_one(build, folder, tmp_path):
    for label in 'ab':
        (tmp_path / 'train' / label).mkdir(parents=True)
        for path in (folder / 'train' / label).iterdir():
            data = path.read_bytes()
            (tmp_path / 'train' / label / path.name).write_bytes(data[: 200 if path.stem in '024' else None])
    pipeline = [dict(LOAD, broken='resample'), PACK]
    expected = one_by_one(build(tmp_path, pipeline))
    same(epoch(build(tmp_path, pipeline)), expected)
    with pytest.raises(OSError, match=r'[024]\.jpg. is broken'):
        epoch(build(tmp_path))


def test_a_folder_of_broken_images_ends(tmp_path):
    for label in 'ab':
        (tmp_path / 'train' / label).mkdir(parents=True)
        (tmp_path / 'train' / label / '0.jpg').write_bytes(b'\xff\xd8')
    with pytest.raises(RuntimeError, match='4 images in a row cannot be loaded'):
        epoch(imagenet(tmp_path, [dict(LOAD, broken='resample'), PACK], max_refetch=3))


@pytest.mark.parametrize(
    'pipeline',
    [
        [LOAD, dict(type='RandomFlip', prob=0.5), PACK],
        [LOAD, dict(PACK, algorithm_keys=('flip',))],
        [LOAD],
    ],
)
def test_other_pipelines_give_samples(pipeline, folder):
    assert not imagenet(folder, pipeline).can_fill()


def test_other_collating_functions_get_samples(folder):
    for batch, other in zip(epoch(imagenet(folder), collate='default_collate'), one_by_one(imagenet(folder))):
        assert torch.equal(batch['inputs'], other['inputs']) and len(batch['data_samples']) == len(
            other['labels']
        )
        assert 'img_path' in batch['data_samples'][0]


@pytest.mark.parametrize('name', ['prepare_data', '__getitem__'])
def test_what_a_subclass_makes_of_a_sample_stays(name, folder):
    own = type('Own', (ImageFolder,), {name: lambda self, i: getattr(ImageFolder, name)(self, i)})
    own.__dict__[name].__module__ = __name__
    dataset = own(data_root=str(folder), data_prefix='train', pipeline=[LOAD, PACK])
    assert image_folder(folder).can_fill() and not dataset.can_fill()


def test_images_without_labels_give_samples(folder):
    assert not image_folder(folder, with_label=False).can_fill()


def test_the_index_alone_travels(folder):
    """But for the first of a batch, which knows its place."""
    indices = list(PlacedSampler(range(12), 0, VirtualProcesses(1, 5)))
    assert [type(i) is int for i in indices] == [i % 5 != 0 for i in range(12)]
    assert imagenet(folder).can_fill()
