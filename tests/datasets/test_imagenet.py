"""ImageNet1k lists what mmpretrain's ImageNet lists."""

import pickle

import pytest
from mmpretrain.datasets import ImageNet

from deit_plugin.datasets import ImageNet1k, imagenet
from deit_plugin.teacher_cache.fingerprint import dataset_listing_hash

CLASSES = ('a', 'b', 'ü c')


@pytest.fixture
def root(tmp_path):
    """With names of every kind, and an order that is not that of the creation."""
    names = {
        'a': ['z.JPEG', 'b.jpg', 'B.PNG', 'sub/x.jpeg', 'sub.jpeg', 'notes.txt', '.hidden.jpg'],
        'b': ['0 1.png', 'ä.jpeg', b'\xff.jpg'.decode(errors='surrogateescape')],
        'ü c': ['10.bmp', '9.bmp'],
    }
    for folder, files in names.items():
        for file in files:
            path = tmp_path / 'train' / folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / 'train' / 'a' / 'gone.jpg').symlink_to('nowhere')
    (tmp_path / 'train' / 'a' / 'folder.jpg').mkdir()
    (tmp_path / 'meta').mkdir()
    return tmp_path


def both(root, **kwargs):
    kwargs = dict(data_root=str(root), split='train', metainfo=dict(classes=CLASSES), **kwargs)
    return ImageNet1k(**kwargs), ImageNet(**kwargs)


def infos(dataset):
    return [dataset.get_data_info(i) for i in range(-1, len(dataset))]


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('indices', [None, 3, -2, [4, 0, 1]])
def test_the_same_images_in_the_same_order(root, serialize, indices):
    ours, theirs = both(root, serialize_data=serialize, indices=indices)
    assert infos(ours) == infos(theirs)
    assert len(ours) == (10 if indices is None else 2 if indices == -2 else 3)
    if indices is None:
        assert ours.folder_to_idx == theirs.folder_to_idx
        assert ours.get_gt_labels().tolist() == theirs.get_gt_labels().tolist()
        assert [ours.get_cat_ids(i) for i in range(10)] == [theirs.get_cat_ids(i) for i in range(10)]


@pytest.mark.parametrize('serialize', [True, False])
def test_subsets_and_copies(root, serialize):
    ours, theirs = both(root, serialize_data=serialize)
    for indices in (4, -3, [5, 2, 8]):
        assert infos(ours.get_subset(indices)) == infos(theirs.get_subset(indices))
    assert infos(pickle.loads(pickle.dumps(ours))) == infos(theirs)
    for dataset in (ours, theirs):
        dataset.get_subset_([1, 2])
    assert infos(ours) == infos(theirs) and len(ours) == 2


def test_lists_and_no_labels(root):
    (root / 'meta' / 'train.txt').write_text('b/ä.jpeg 1\na/some name.jpg 0\n')
    ours, theirs = both(root)
    assert infos(ours) == infos(theirs) and len(ours) == 2
    (root / 'meta' / 'train.txt').unlink()
    ours, theirs = both(root, with_label=False)
    assert infos(ours) == infos(theirs) and 'gt_label' not in ours.get_data_info(0)


@pytest.mark.parametrize('kwargs', [{}, dict(serialize_data=False), dict(with_label=False), dict(indices=4)])
def test_the_hash_is_that_of_every_image(root, kwargs):
    """Records of a teacher that were made before are still of the same data."""
    ours, theirs = both(root, **kwargs)
    assert dataset_listing_hash(ours) == dataset_listing_hash(theirs)
    assert dataset_listing_hash(ours) != dataset_listing_hash(ours.get_subset([0, 1]))


def test_what_does_not_fit_is_told(root, monkeypatch):
    told = []
    monkeypatch.setattr(imagenet, 'print_log', lambda message, **_: told.append(message))
    with pytest.raises(ValueError, match='has 3 folders, but there are 1000 classes'):
        ImageNet1k(data_root=str(root), split='train')
    (root / 'train' / 'd').mkdir()
    ImageNet1k(data_root=str(root), split='train', metainfo=dict(classes=(*CLASSES, 'd')))
    assert told == [f'No images in d of {root}/train']
    (root / 'val' / 'a').mkdir(parents=True)
    with pytest.raises(ValueError, match='has no images'):
        ImageNet1k(data_root=str(root), split='val', metainfo=dict(classes=('a',)))
    with pytest.raises(FileNotFoundError, match='ImageNet is not at'):
        ImageNet1k(data_root=str(root / 'nowhere'), split='train')
