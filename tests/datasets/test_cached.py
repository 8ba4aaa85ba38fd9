"""`LoadCached`: training on images that were decoded once."""

import json
import os
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
from cached_images import SIDE, write_config, write_images
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image
from torch.utils.data import DataLoader

from deit_plugin.apis import cache_plan
from deit_plugin.apis.cache import cache
from deit_plugin.datasets import LoadCached, LoadImage, LoadRandomResizedCrop
from deit_plugin.datasets.jpeg import resize
from deit_plugin.datasets.seeded import PlacedIndex, draw_by_place

pytestmark = pytest.mark.usefixtures('quick')


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_plan, 'LEAST_IMAGES', 2)
    return write_images(tmp_path / 'data')


@pytest.fixture
def folder(data, tmp_path):
    cache(write_config(tmp_path / 'config.py', data), tmp_path / 'out', SIDE, workers=0)
    return tmp_path / 'out'


def paths_of(data):
    return sorted(str(path) for path in (data / 'train').rglob('*.*'))


def expected(path):
    """The whole image resized, BGR."""
    image = LoadImage().transform(dict(img_path=path))['img']
    height, width = image.shape[:2]
    if (short := min(height, width)) > SIDE:
        size = round(height * SIDE / short), round(width * SIDE / short)
        image = resize(np.ascontiguousarray(image), size).permute(1, 2, 0).numpy()
    return image


def build(data, cached, tmp_path):
    cfg = Config.fromfile(write_config(tmp_path / 'train.py', data, cached))
    return DATASETS.build(cfg.train_dataloader.dataset)


def test_an_image_is_a_view_of_the_file(data, folder):
    load = LoadCached(folder)
    for path in paths_of(data):
        found = load.transform(dict(img_path=path, gt_label=1))
        assert (found['img'] == expected(path)).all(), path
        assert found['img_shape'] == found['ori_shape'] == expected(path).shape[:2] and found['gt_label'] == 1
        again = load.transform(dict(img_path=path))['img']
        assert np.shares_memory(found['img'], again) and not again.flags.writeable


def test_a_training_gets_crops_of_the_cached_images(data, folder, tmp_path):
    """As the same boxes of the resized images are, by Pillow within a level."""
    dataset = build(data, folder, tmp_path)
    crop = LoadRandomResizedCrop(scale=32)
    for i, path in enumerate(paths_of(data)):
        np.random.seed(i)
        sample = dataset[i]
        np.random.seed(i)
        assert dataset.get_data_info(i)['img_path'] == path
        image = expected(path)
        top, left, height, width = crop.crop_box(*image.shape[:2])
        part = Image.fromarray(image).crop((left, top, left + width, top + height))
        pillows = np.asarray(part.resize((32, height), Image.BICUBIC).resize((32, 32), Image.BICUBIC))
        if np.random.random() < 0.5:
            pillows = pillows[:, ::-1]
        assert np.abs(sample['inputs'].permute(1, 2, 0).numpy().astype(int) - pillows).max() <= 2, path
        np.random.seed(i)
        same = crop.transform(dict(img=image))['img']
        assert (sample['inputs'].permute(1, 2, 0).numpy() == same).all()


def test_a_batch_is_filled_with_them(data, folder, tmp_path):
    dataset = build(data, folder, tmp_path)
    assert dataset.can_fill()
    np.random.seed(0)
    batch = dataset.fill_batch(iter(range(len(dataset))), len(dataset))
    np.random.seed(0)
    samples = [dataset[i] for i in range(len(dataset))]
    assert torch.equal(batch['inputs'], torch.stack([sample['inputs'] for sample in samples]))
    assert batch['labels'].tolist() == [sample['data_samples'].gt_label.item() for sample in samples]


@pytest.mark.parametrize('method, number', [('fork', 2), ('spawn', 1)])
def test_each_process_opens_its_own_map(data, folder, tmp_path, method, number):
    dataset = build(data, folder, tmp_path)
    draw_by_place(dataset)
    indices = [PlacedIndex(i, (0, 0, i)) for i in range(len(dataset))]
    here = [sample['inputs'] for sample in dataset.__getitems__(indices)]
    loader = DataLoader(
        dataset,
        batch_sampler=[indices[:5], indices[5:]],
        num_workers=number,
        multiprocessing_context=method,
        collate_fn=as_they_are,
    )
    there = [sample['inputs'] for batch in loader for sample in batch]
    assert torch.equal(torch.stack(here), torch.stack(there))


def as_they_are(samples):
    return samples


def test_no_map_is_pickled(data, folder):
    load = LoadCached(folder)
    before = len(pickle.dumps(load))
    for path in paths_of(data):
        load.transform(dict(img_path=path))
    assert len(pickle.dumps(load)) == before < 2000
    copy = pickle.loads(pickle.dumps(load))
    path = paths_of(data)[0]
    assert (copy.transform(dict(img_path=path))['img'] == load.transform(dict(img_path=path))['img']).all()


def test_wrappers_and_other_orders_find_their_images(data, folder, tmp_path):
    steps = [dict(type='LoadCached', path=str(folder))]
    inner = dict(type='ImageFolder', data_root=str(data), data_prefix='train', pipeline=steps)
    kept = dict(inner, indices=[7, 2, 5])
    for dataset in (
        dict(type='RepeatDataset', dataset=inner, times=2),
        dict(type='ClassBalancedDataset', dataset=inner, oversample_thr=0.9),
        dict(type='ConcatDataset', datasets=[kept, inner]),
        dict(type='KFoldDataset', dataset=inner, fold=1, num_splits=3),
    ):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            built = DATASETS.build(dataset)
        for i in range(len(built)):
            sample = built[i]
            assert (sample['img'] == expected(sample['img_path'])).all()


def test_the_files_may_have_moved_or_be_gone(data, folder, tmp_path):
    path = paths_of(data)[0]
    image = LoadCached(folder).transform(dict(img_path=path))['img']
    shutil.move(data, tmp_path / 'elsewhere')
    moved = path.replace(str(data), str(tmp_path / 'elsewhere'))
    assert (LoadCached(folder).transform(dict(img_path=moved))['img'] == image).all()
    assert (LoadCached(folder).transform(dict(img_path=path))['img'] == image).all()
    shutil.rmtree(tmp_path / 'elsewhere')
    assert (LoadCached(folder).transform(dict(img_path=moved))['img'] == image).all()


def test_another_data_set_is_noticed(data, folder):
    path = paths_of(data)[0]
    val = path.replace('/train/', '/val/')
    with pytest.raises(ValueError, match=r'9 of .ImageFolder., none is named val/a/grey.jpg'):
        LoadCached(folder).transform(dict(img_path=val))
    size = os.path.getsize(path)
    with open(path, 'ab') as file:
        file.write(b'x')
    with pytest.raises(ValueError, match=f'has {size + 1:,} bytes, but .* was read from {size:,}'):
        LoadCached(folder).transform(dict(img_path=path))


def test_images_that_are_loaded_are_refused(folder, data):
    load = LoadCached(folder)
    for results in (dict(img=np.zeros((4, 4, 3))), dict(img_path=paths_of(data)[0], img=1)):
        with pytest.raises(ValueError, match='first in the pipeline.*got img'):
            load.transform(results)


def test_a_missing_or_damaged_folder_is_refused(folder, tmp_path):
    build = TRANSFORMS.build
    cfg = dict(type='LoadCached', path=str(folder))
    assert str(folder) in repr(build(cfg))
    with pytest.raises(FileNotFoundError, match='deit-plugin cache CONFIG --output '):
        build(dict(cfg, path=str(tmp_path / 'none')))

    def refused(name, content, match):
        path = folder / name
        before = path.read_bytes()
        path.unlink() if content is None else path.write_bytes(content(before))
        with pytest.raises((ValueError, OSError), match=match):
            build(cfg)
        path.write_bytes(before)

    refused('shard-0002.npy', lambda old: old[:-1], 'shard-0002.npy is damaged .*writes it anew')
    refused(
        'shard-0002.npy', lambda old: (folder / 'shard-0001.npy').read_bytes(), 'shard-0002.npy is damaged'
    )
    refused('shard-0002.npy', None, r'1 of 5 shards are missing \(shard-0002.npy\)')
    refused('index.npy', lambda old: old[:-8], 'index.npy is damaged')
    refused('index.npy', None, 'index.npy is damaged')
    refused('header.json', lambda old: old[:100], 'header.json is damaged')
    refused('header.json', lambda old: b'[]', 'header.json is damaged')
    header = json.loads((folder / 'header.json').read_text())
    for change, match in ((dict(images=8), 'index.npy is damaged'), (dict(format=2), 'format 2, .* reads 1')):
        refused('header.json', lambda old: json.dumps(dict(header, **change)).encode(), match)
    build(cfg)


def test_a_crop_of_full_width_gives_no_warning(data, folder):
    image = LoadCached(folder).transform(dict(img_path=paths_of(data)[4]))['img']  # 64 x 64
    crop = LoadRandomResizedCrop(32, crop_ratio_range=(1, 1), aspect_ratio_range=(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        crop.transform(dict(img=image))
