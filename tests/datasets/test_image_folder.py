"""One's own images: folders, lists, and a part held out."""

import pytest
from PIL import Image

from deit_plugin.datasets import ImageFolder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.fixture
def images(tmp_path):
    for name, count in dict(cat=10, dog=5, owl=1).items():
        touch(tmp_path, *(f'{name}/{i}.jpg' for i in range(count)))
    return tmp_path


def of(folder, **kwargs):
    data = ImageFolder(data_root=str(folder), pipeline=[], **kwargs)
    infos = [data.get_data_info(i) for i in range(len(data))]
    return data, [(info['img_path'][len(str(folder)) + 1 :], info['gt_label']) for info in infos]


def test_a_folder_for_each_class(images):
    data, samples = of(images)
    assert data.metainfo['classes'] == ('cat', 'dog', 'owl')
    assert len(samples) == 16 and samples[0] == ('cat/0.jpg', 0) and samples[-1] == ('owl/0.jpg', 2)


def test_a_class_without_images_is_named(images):
    (images / 'emu').mkdir()
    (images / 'emu' / 'notes.txt').touch()
    with pytest.raises(ValueError, match='has folders without images: emu. Add some, or remove'):
        of(images)
    _, samples = of(images, metainfo=dict(classes=['cat', 'dog', 'emu', 'owl']))  # of a validation
    assert len(samples) == 16


@pytest.mark.parametrize('fraction', [0.2, 0.5, 0.9])
def test_of_each_class_the_same_part_is_held_out(images, fraction):
    (_, train), (_, val) = (of(images, split=split, val_fraction=fraction) for split in ('train', 'val'))
    assert not set(train) & set(val) and len(train) + len(val) == 16
    counts = [sum(label == i for _, label in val) for i in range(3)]
    # Of a single image none, and of several not all.
    assert counts == [min(round(10 * fraction), 9), max(1, min(round(5 * fraction), 4)), 0]


def test_the_division_follows_from_the_seed_and_hardly_from_the_rest(images):
    first = of(images, split='val')[1]
    assert of(images, split='val')[1] == first
    assert of(images, split='val', split_seed=1)[1] != first
    touch(images, 'cat/new.jpg', 'ant/0.jpg', 'ant/1.jpg')
    names = {path for path, _ in of(images, split='val')[1]}
    assert len({path for path, _ in first} - names) <= 1


@pytest.mark.parametrize(
    'name, text',
    [
        ('a.txt', 'cat/0.jpg cat\nsub dir/b c.jpg dog\n\n'),
        ('a.csv', 'cat/0.jpg,cat\nsub dir/b c.jpg,dog\n'),
        ('a.csv', 'label,id,path\ncat,7,cat/0.jpg\ndog,8,sub dir/b c.jpg\n'),
        ('a.CSV', 'Filename,Class\n"cat/0.jpg","cat"\nsub dir/b c.jpg, dog\n'),
    ],
)
def test_lists_with_names(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    data, samples = of(tmp_path, ann_file=name)
    assert data.metainfo['classes'] == ('cat', 'dog')
    assert samples == [('cat/0.jpg', 0), ('sub dir/b c.jpg', 1)]


def test_lists_with_numbers(tmp_path):
    """As mmpretrain's CustomDataset reads."""
    (tmp_path / 'a.txt').write_text('a.jpg 2\nb.jpg 0\n')
    data, samples = of(tmp_path, ann_file='a.txt')
    assert data.metainfo['classes'] == ('0', '1', '2') and samples == [('a.jpg', 2), ('b.jpg', 0)]
    data, samples = of(tmp_path, ann_file='a.txt', metainfo=dict(classes=['x', 'y', 'z']))
    assert data.metainfo['classes'] == ('x', 'y', 'z') and samples == [('a.jpg', 2), ('b.jpg', 0)]


def test_classes_in_another_order(images):
    _, samples = of(images, metainfo=dict(classes=['owl', 'cat', 'dog']))
    assert samples[0] == ('cat/0.jpg', 1) and samples[-1] == ('owl/0.jpg', 0)


def test_a_class_without_images_here_keeps_its_number(images):
    """As in val/, where train/ has it."""
    data, samples = of(images, metainfo=dict(classes=['ant', 'cat', 'dog', 'owl']))
    assert samples[0] == ('cat/0.jpg', 1) and len(data.metainfo['classes']) == 4


@pytest.mark.parametrize(
    'arguments, error, message',
    [
        (dict(data_prefix='absent'), FileNotFoundError, r'There is no folder .*absent'),
        (dict(ann_file='absent.csv'), FileNotFoundError, r'There is no list of images .*absent.csv'),
        (dict(ann_file='bare.csv'), ValueError, r'bare.csv: the 2. image has no label: .*b.jpg'),
        (dict(data_prefix='empty'), ValueError, r'no images in .*empty.*one folder of them for each class'),
        (
            dict(metainfo=dict(classes=['cat', 'dog'])),
            ValueError,
            'classes owl, .* none of the 2: cat',
        ),
        (dict(split='test'), ValueError, "split='test' is unknown"),
        (dict(val_fraction=1), ValueError, 'val_fraction=1 must be above 0 and below 1'),
    ],
)
def test_errors_say_what_is_wrong(images, arguments, error, message):
    (images / 'bare.csv').write_text('a.jpg,cat\nb.jpg\n')
    with pytest.raises(error, match=message):
        # Beside the lists there is no folder that is no class.
        (images / 'empty').mkdir() if arguments == dict(data_prefix='empty') else None
        of(images, **arguments)


def test_without_labels_it_is_mmpretrains(images):
    data = ImageFolder(data_root=str(images), with_label=False, pipeline=[])
    assert len(data) == 16 and 'gt_label' not in data.get_data_info(0)


def test_an_image_is_read(tmp_path):
    (tmp_path / 'cat').mkdir()
    Image.new('RGB', (20, 10), 'red').save(tmp_path / 'cat' / 'a.png')
    data = ImageFolder(data_root=str(tmp_path), pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
    assert data[0]['inputs'].shape == (3, 10, 20)
    assert data[0]['inputs'][:, 0, 0].tolist() == [0, 0, 255]  # BGR
