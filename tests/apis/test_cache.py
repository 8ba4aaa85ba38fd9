"""`deit-plugin cache`: whole or not at all, and going on."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from cached_images import SIDE, photo, write_config, write_images
from conftest import CONFIGS, ROOT
from filelock import FileLock
from mmengine.config import Config
from PIL import Image

from deit_plugin.__main__ import main
from deit_plugin.apis import cache as cache_module
from deit_plugin.apis import cache_plan, cache_shards
from deit_plugin.apis.cache import cache
from deit_plugin.datasets import LoadCached, LoadImage
from deit_plugin.datasets.jpeg import resize

NAMES = 9


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_plan, 'LEAST_IMAGES', 2)
    return write_images(tmp_path / 'data')


@pytest.fixture
def config(data, tmp_path):
    return write_config(tmp_path / 'config.py', data)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.suffix == '.npy'}


def stored(folder, path):
    """From the files alone, as the header describes them; RGB."""
    header = json.loads((folder / 'header.json').read_text())
    key = hashlib.blake2b('/'.join(str(path).split('/')[-3:]).encode(), digest_size=8)
    index = np.load(folder / 'index.npy')
    assert header['name_parts'] == 3 and (np.diff(index[0].astype(object)) > 0).all()
    (at,) = np.flatnonzero(index[0] == int.from_bytes(key.digest(), 'little'))
    _, shard, offset, height, width, file_bytes = index[:, at].tolist()
    assert file_bytes == os.path.getsize(path)
    flat = np.load(folder / f'shard-{shard:04d}.npy')
    return flat[offset : offset + 3 * height * width].reshape(height, width, 3)


def by_pillow(path):
    """The horizontal pass first, as of Pillow 12."""
    image = Image.open(path).convert('RGB')
    width, height = image.size
    if min(width, height) <= SIDE:
        return np.asarray(image)
    scale = SIDE / min(width, height)
    size = round(width * scale), round(height * scale)
    return np.asarray(image.resize((size[0], height), Image.BICUBIC).resize(size, Image.BICUBIC))


def test_the_pixels_are_those_of_a_whole_image_resized(data, config, tmp_path):
    found = cache(config, tmp_path / 'out', SIDE, workers=0)
    paths = sorted((data / 'train').rglob('*.*'))
    assert len(paths) == found['images'] == NAMES and found['broken'] == 0
    assert len(contents(tmp_path / 'out')) == 1 + 5  # two images in a shard
    pixels = 0
    for path in paths:
        ours, pillows = stored(tmp_path / 'out', path), by_pillow(path)
        assert ours.shape == pillows.shape, path
        assert np.abs(ours.astype(int) - pillows).max() <= 2, path
        whole = LoadImage().transform(dict(img_path=str(path)))['img'][..., ::-1]
        if ours.shape != whole.shape:
            whole = resize(np.ascontiguousarray(whole), ours.shape[:2]).permute(1, 2, 0).numpy()
        assert (ours == whole).all(), path
        pixels += ours.size
    assert found['bytes'] == pixels == json.loads((tmp_path / 'out/header.json').read_text())['bytes']


def test_processes_write_the_same_until_ctrl_c(config, tmp_path, monkeypatch, capfd):
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    assert contents(tmp_path / 'whole').keys() == {'index.npy', *(f'shard-{i:04d}.npy' for i in range(5))}
    replace, numbers = os.replace, []

    @contextmanager
    def asked(number):
        numbers.append(number)
        with cache_shards.processes(number) as run:
            # A terminal sends it to them, too, and what they do ends with the shard.
            assert list(run(signal.getsignal, [signal.SIGINT])) == [signal.SIG_IGN]
            yield run

    def stop(part, path):
        if len(list((tmp_path / 'out').glob('shard-*.npy'))) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        replace(part, path)

    monkeypatch.setattr(cache_module, 'processes', asked)
    monkeypatch.setattr(os, 'replace', stop)
    command = ['cache', config, '--output', str(tmp_path / 'out'), '--side', str(SIDE)]
    assert main([*command, '--workers', '1']) == 130 and numbers == [1]
    said = capfd.readouterr().out
    assert f'{NAMES} images with a short side of {SIDE} pixels at most' in said and 'are free in' in said
    assert 'the same command goes on' in said
    written = contents(tmp_path / 'out')
    assert len(written) == 1 + 4 and written.items() <= contents(tmp_path / 'whole').items()
    assert sorted(os.listdir(tmp_path / 'out')) == sorted({*written, 'header.json', 'cache.lock'})
    monkeypatch.undo()


def test_the_last_lines_are_a_config_that_trains_on_them(config, tmp_path, capsys):
    assert main(['cache', config, '--output', str(tmp_path / 'out'), '--workers', '0']) == 0
    mine = tmp_path / 'mine.py'
    mine.write_text(capsys.readouterr().out.partition('in a config of yours:\n\n')[2])
    steps = Config.fromfile(mine).train_dataloader.dataset.pipeline
    assert [step.type for step in steps] == ['LoadCached', 'LoadRandomResizedCrop', 'PackInputs']
    assert LoadCached(steps[0].path).header['images'] == NAMES
    # The same config writes them, too, before there are any.
    shutil.rmtree(tmp_path / 'out')
    assert main(['cache', str(mine), '--output', str(tmp_path / 'out'), '--workers', '0']) == 0
    assert 'has a LoadCached already' in capsys.readouterr().out


def test_what_was_stopped_goes_on(data, config, tmp_path, monkeypatch):
    """A shard that is there is not written again, and a rest of one is removed."""
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    replace, done = os.replace, []

    def stop(part, path):
        if path.endswith('shard-0003.npy'):
            raise KeyboardInterrupt
        done.append(path)
        replace(part, path)

    monkeypatch.setattr(os, 'replace', stop)
    with pytest.raises(KeyboardInterrupt):
        cache(config, tmp_path / 'out', SIDE, workers=0)
    assert [os.path.basename(path) for path in done][-3:] == [f'shard-{i:04d}.npy' for i in range(3)]
    with pytest.raises(ValueError, match='not complete, 2 of 5 shards are missing .shard-0003.npy'):
        LoadCached(tmp_path / 'out')
    (tmp_path / 'out/shard-0003.npy.1.deit_plugin_part').write_bytes(b'half')
    monkeypatch.setattr(os, 'replace', replace)
    before = (tmp_path / 'out/shard-0001.npy').stat().st_mtime_ns
    cache(config, tmp_path / 'out', SIDE, workers=0)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')
    assert (tmp_path / 'out/shard-0001.npy').stat().st_mtime_ns == before
    assert not [name for name in os.listdir(tmp_path / 'out') if 'part' in name]


KILLED = """
import os, signal, sys
from deit_plugin.__main__ import main
from deit_plugin.apis import cache_plan

cache_plan.LEAST_IMAGES = 2
replace = os.replace

def kill(part, path):
    replace(part, path)
    if 'shard-' in path:
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = kill
main(sys.argv[1:])
"""


def test_a_killed_run_goes_on(config, tmp_path):
    """With its processes, in the middle; the pipe ends with the last of these."""
    options = [config, '--output', 'out', '--side', str(SIDE), '--workers', '1']
    killed = subprocess.run(
        [sys.executable, '-c', KILLED, 'cache', *options],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list((tmp_path / 'out').glob('shard-*.npy'))) == 1
    cache(config, tmp_path / 'out', SIDE, workers=0)
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')
    assert not [name for name in os.listdir(tmp_path / 'out') if 'part' in name]


def test_a_shard_is_left_in_the_middle(data, tmp_path, monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr(cache_shards, '_stop', stop)
    (tmp_path / 'out').mkdir()
    path = str(data / 'train/b/exact.jpg')
    task = cache_shards.ShardTask(
        str(tmp_path / 'out'), 0, [path] * 2, np.full((2, 2), SIDE), SIDE, broken='raise'
    )
    pixels = cache_shards._pixels
    monkeypatch.setattr(cache_shards, '_pixels', lambda *args: (stop.set(), pixels(*args))[1])
    with pytest.raises(cache_shards.Stopped):
        cache_shards.write_shard(task)
    assert not os.listdir(tmp_path / 'out')


def test_another_side_or_data_set_is_refused(data, config, tmp_path):
    cache(config, tmp_path / 'out', SIDE, workers=0)
    before = contents(tmp_path / 'out')
    with pytest.raises(ValueError, match=f'side: {SIDE} -> 72'):
        cache(config, tmp_path / 'out', 72, workers=0)
    (data / 'train/a/tall.jpg').rename(data / 'train/b/tall.jpg')
    with pytest.raises(ValueError, match='names_sha256: "[0-9a-f]+.* -> .*"'):
        cache(config, tmp_path / 'out', SIDE, workers=0)
    (data / 'train/b/tall.jpg').rename(data / 'train/a/tall.jpg')
    size = os.path.getsize(data / 'train/a/tall.jpg')
    photo(50, 50).save(data / 'train/a/tall.jpg')
    with pytest.raises(ValueError, match=rf'tall.jpg has [\d,]+ bytes, but had {size:,} '):
        cache(config, tmp_path / 'out', SIDE, workers=0)
    assert contents(tmp_path / 'out') == before


def test_a_second_run_is_refused(config, tmp_path):
    (tmp_path / 'out').mkdir()
    with FileLock(tmp_path / 'out/cache.lock'), pytest.raises(BlockingIOError, match='Another run writes'):
        cache(config, tmp_path / 'out', workers=0)


def test_what_is_in_the_folder_stays(config, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='something else, thesis.txt'):
        cache(config, tmp_path / 'out', workers=0)
    with pytest.raises(FileExistsError, match='is a file'):
        cache(config, tmp_path / 'out/thesis.txt', workers=0)
    assert os.listdir(tmp_path / 'out') == ['thesis.txt']


@pytest.mark.parametrize(
    'names, others',
    [
        (['header.json', 'thesis.txt'], 'thesis.txt'),
        (['header.json', 'shard-1.npy', 'shard-0000.npy.bak'], 'shard-0000.npy.bak, shard-1.npy'),
        (['mine.deit_plugin_part'], 'mine.deit_plugin_part'),
        (['index.npy'], 'index.npy'),
        (['shard-0000.npy'], 'shard-0000.npy'),
    ],
)
def test_a_folder_of_something_else_stays(config, tmp_path, names, others):
    (tmp_path / 'out').mkdir()
    for name in names:
        (tmp_path / 'out' / name).write_text('{"mine": 1}')
    with pytest.raises(FileExistsError, match=f'something else, {others}: name a new folder$'):
        cache(config, tmp_path / 'out', workers=0)
    assert sorted(os.listdir(tmp_path / 'out')) == sorted(names)
    assert all((tmp_path / 'out' / name).read_text() == '{"mine": 1}' for name in names)


@pytest.mark.parametrize('content', ['{"mine": 1}', 'mine'])
def test_a_header_of_something_else_stays(config, tmp_path, content):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/header.json').write_text(content)
    for read in (LoadCached, lambda folder: cache(config, folder, workers=0)):
        with pytest.raises(ValueError, match='header.json .*not of cached images') as error:
            read(tmp_path / 'out')
        assert 'delete' not in str(error.value) and 'another folder' in str(error.value)
    assert (tmp_path / 'out/header.json').read_text() == content


def test_a_run_that_was_stopped_before_its_header_goes_on(config, tmp_path):
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    (tmp_path / 'out').mkdir()
    shutil.copy(tmp_path / 'whole/index.npy', tmp_path / 'out')
    (tmp_path / 'out/header.json.abc_1.deit_plugin_part').write_bytes(b'half')
    cache(config, tmp_path / 'out', SIDE, workers=0)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(config, tmp_path, monkeypatch):
    found = cache(config, tmp_path / 'out', SIDE, workers=0)
    disk = namedtuple('disk', 'total used free')
    needed = found['bytes'] + 6 * 8 * NAMES
    for free, fits in ((needed, False), (round(1.03 * needed), True)):  # a margin
        monkeypatch.setattr(shutil, 'disk_usage', lambda path: disk(0, 0, free))
        if fits:
            cache(config, tmp_path / f'{free}', SIDE, workers=0)
            continue
        with pytest.raises(
            OSError, match=rf'needed are {needed / 1e6:.1f} MB .*free are {free / 1e6:.1f} MB'
        ):
            cache(config, tmp_path / f'{free}', SIDE, workers=0)
        assert not os.listdir(tmp_path / f'{free}') or os.listdir(tmp_path / f'{free}') == ['cache.lock']
    # What is there needs no room.
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: disk(0, 0, 0))
    cache(config, tmp_path / 'out', SIDE, workers=0)


def break_image(path, header):
    path.write_bytes(b'no image' if header else path.read_bytes()[:-300])


@pytest.mark.parametrize('header', [True, False])
def test_a_broken_image_is_named_and_may_be_mended(data, config, tmp_path, header):
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    path = data / 'train/b/exact.jpg'  # the first of the third shard
    whole = path.read_bytes()
    break_image(path, header)
    for _ in range(2):
        with pytest.raises(OSError, match='exact.jpg.* is broken'):
            cache(config, tmp_path / 'out', SIDE, workers=0)
    assert len(list((tmp_path / 'out').glob('shard*'))) == (0 if header else 2)
    path.write_bytes(whole)
    cache(config, tmp_path / 'out', SIDE, workers=0)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


@pytest.mark.parametrize('header', [True, False])
def test_a_broken_image_may_be_skipped(data, config, tmp_path, capsys, header):
    path = data / 'train/b/clear.png'  # the first of two in its shard
    break_image(path, header)
    command = ['cache', config, '--output', str(tmp_path / 'out'), '--side', str(SIDE), '--workers', '0']
    assert main(command) == 2
    assert main([*command, '--broken', 'skip']) == 0
    said = capsys.readouterr().out
    assert 'clear.png' in said and '1 of them are broken' in said
    load = LoadCached(tmp_path / 'out')
    assert load.transform(dict(img_path=str(path))) is None
    for other in sorted((data / 'train').rglob('*.*')):
        if other != path:
            assert (
                load.transform(dict(img_path=str(other)))['img'][..., ::-1] == stored(tmp_path / 'out', other)
            ).all()
    before = contents(tmp_path / 'out')
    assert main([*command, '--broken', 'skip']) == 0  # done already
    assert contents(tmp_path / 'out') == before


@pytest.mark.parametrize('header', [True, False])
def test_what_was_left_out_is_no_success_without_skip(data, config, tmp_path, header):
    """Nor is it left out for ever: a shard that is deleted takes it in, though its file has as many bytes."""
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    path = data / 'train/b/clear.png'
    whole = path.read_bytes()
    path.write_bytes(b'x' * len(whole) if header else whole[:200] + b'x' * (len(whole) - 200))
    cache(config, tmp_path / 'out', SIDE, workers=0, broken='skip')
    (shard,) = [
        name
        for name, old in contents(tmp_path / 'whole').items()
        if name != 'index.npy' and old != contents(tmp_path / 'out')[name]
    ]
    with pytest.raises(OSError, match=f'clear.png was broken .*1 in all.*delete {shard} .*--broken skip'):
        cache(config, tmp_path / 'out', SIDE, workers=0)
    (tmp_path / 'out' / shard).unlink()
    with pytest.raises(OSError, match='clear.png.* is broken'):
        cache(config, tmp_path / 'out', SIDE, workers=0)
    path.write_bytes(whole)
    cache(config, tmp_path / 'out', SIDE, workers=0)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


@pytest.mark.parametrize('broken', ['raise', 'skip'])
def test_a_mended_image_tells_which_shard_to_delete(data, config, tmp_path, broken):
    cache(config, tmp_path / 'whole', SIDE, workers=0)
    names = ['train/a/grey.jpg', 'train/b/panorama.jpg']
    whole = [(data / name).read_bytes() for name in names]
    for name in names:
        break_image(data / name, header=True)
    cache(config, tmp_path / 'out', SIDE, workers=0, broken='skip')
    for name, content in zip(names, whole):
        (data / name).write_bytes(content)
    with pytest.raises(ValueError, match='.jpg was broken .*2 in all.*changed since: delete shard-') as error:
        cache(config, tmp_path / 'out', SIDE, workers=0, broken=broken)
    assert 'another data set' not in str(error.value)
    shards = re.findall(r'shard-\d+\.npy', str(error.value))
    assert len(shards) == 2
    for shard in shards:
        (tmp_path / 'out' / shard).unlink()
    cache(config, tmp_path / 'out', SIDE, workers=0, broken=broken)
    assert contents(tmp_path / 'out') == contents(tmp_path / 'whole')


@pytest.mark.parametrize('header', [True, False])
def test_broken_images_only_are_an_error(data, config, tmp_path, capsys, header):
    for path in (data / 'train').rglob('*.*'):
        path.write_bytes(b'no image' if header else path.read_bytes()[:200] + b'x' * 20)
    command = ['cache', config, '--output', str(tmp_path / 'out'), '--workers', '0', '--broken', 'skip']
    for _ in range(2):
        assert main(command) == 2
        assert f'All {NAMES} images are broken, such as {data}/train/' in capsys.readouterr().err
    assert not header or os.listdir(tmp_path / 'out') in ([], ['cache.lock'])


def test_a_process_that_is_ended_from_outside_is_told(monkeypatch):
    monkeypatch.setattr(cache_shards, '_begin', id)  # it needs not import the package
    with pytest.raises(OSError, match='was ended from outside.*--workers 1'):
        with cache_shards.processes(1) as run:
            list(run(os._exit, [1]))


def test_images_of_which_there_is_nothing_to_decode_are_refused(tmp_path):
    with pytest.raises(ValueError, match='Digits has its images in memory'):
        cache(str(CONFIGS / 'deit_digits.py'), tmp_path / 'out', workers=0)
    assert not (tmp_path / 'out').exists()


def test_a_wrapper_gives_each_image_once(data, tmp_path):
    inner = dict(type='ImageFolder', data_root=str(data), data_prefix='train', pipeline=[])
    dataset = dict(type='mmengine.ClassBalancedDataset', dataset=inner, oversample_thr=0.9)
    config = write_config(tmp_path / 'config.py', data, dataset=dataset)
    found = cache(config, tmp_path / 'out', SIDE, workers=0)
    assert found['images'] == NAMES and 'first in the pipeline of the data set' in found['use']


def test_a_training_has_few_shards_open(config, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_plan, 'MOST_SHARDS', 3)
    cache(config, tmp_path / 'out', SIDE, workers=0)
    assert len(list((tmp_path / 'out').glob('shard*'))) == 3


def test_names_that_only_more_parts_tell_apart(tmp_path):
    for part in 'xy':
        folder = tmp_path / 'data/train/a' / part / 'deep/er'
        folder.mkdir(parents=True)
        photo(60, 50, name='china.jpg' if part == 'x' else 'flower.jpg').save(folder / '1.png')
    config = write_config(tmp_path / 'config.py', tmp_path / 'data')
    cache(config, tmp_path / 'out', workers=0)
    load = LoadCached(tmp_path / 'out')
    assert load.header['name_parts'] == 4
    for path in (tmp_path / 'data').rglob('*.png'):
        image = load.transform(dict(img_path=str(path)))['img']
        assert (image[..., ::-1] == np.asarray(Image.open(path))).all()


@pytest.mark.parametrize(
    'options, match',
    [
        (['--side', '0'], '--side 0'),
        (['--workers', '-1'], '--workers -1'),
    ],
)
def test_what_does_not_fit_is_refused(config, tmp_path, capsys, options, match):
    assert main(['cache', config, '--output', str(tmp_path / 'out'), *options]) == 2
    assert match in capsys.readouterr().err


@pytest.mark.parametrize('base, side', [('deit_base_384', 438), ('deit3/deit3_small_384', 384)])
def test_crops_larger_than_the_images_are_told(data, base, side, tmp_path, capsys):
    """With the side that the evaluation of this config resizes to."""
    dataset = dict(_delete_=True, type='ImageFolder', data_root=str(data), data_prefix='train')
    (tmp_path / 'config.py').write_text(
        f'_base_ = [{str(CONFIGS / base) + ".py"!r}]\n'
        f'train_dataloader = dict(dataset=dict({dataset}, pipeline=_base_.train_pipeline))\n'
    )
    cache(str(tmp_path / 'config.py'), tmp_path / 'out', workers=0)
    said = capsys.readouterr().out
    assert f'are all enlarged. The evaluation resizes to {side}: --side {side}\n' in said


def test_crops_larger_than_the_images_are_told_without_an_evaluation(config, tmp_path, capsys):
    cache(config, tmp_path / 'out', 28, workers=0)
    assert 'are all enlarged. --side 32\n' in capsys.readouterr().out
