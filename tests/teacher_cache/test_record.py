"""The files of a teacher's answers: whole or not at all, and of one recipe."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from deit_plugin.__main__ import main
from deit_plugin.draws import Iteration
from deit_plugin.teacher_cache import answers
from deit_plugin.teacher_cache.answers import Answers
from deit_plugin.teacher_cache.record import Record, epochs_named, read_epoch

WEIGHTS = [dict(name='teacher.pth', sha256='a' * 64)]
RECIPE = dict(steps=3, processes=4, batch_size=2, topk=0, num_classes=9, seed=0, teacher_weights=WEIGHTS)
CLASSES = np.arange(24, dtype=np.uint16).reshape(3, 4, 2) % 9


def fingerprint(**changes):
    return dict(recipe={**RECIPE, **changes}, recorded_on=dict(device='cpu'))


def open_record(folder, mode='auto', wanted=range(3), found=None, data=None):
    found = found or fingerprint()
    return Record(str(folder), mode, wanted, lambda asked: copy.deepcopy(found), data or dict(type='Dots'))


@pytest.fixture
def folder(tmp_path):
    """With two epochs."""
    record = open_record(tmp_path / 'labels')
    for number in range(2):
        record.write(number, [(CLASSES + number) % 9], {})
    return tmp_path / 'labels'


def test_what_is_written_is_read(folder):
    record = open_record(folder)
    assert record.recorded == {0, 1} and record.read(2) is None
    np.testing.assert_array_equal(record.read(1)[0], (CLASSES + 1) % 9)
    np.testing.assert_array_equal(load_file(folder / 'epoch-0001.safetensors')['classes'], (CLASSES + 1) % 9)
    assert open_record(folder, 'record').read(1) is None
    content = (folder / 'epoch-0001.safetensors').read_bytes()
    record.write(1, [(CLASSES + 1) % 9], {})
    assert (folder / 'epoch-0001.safetensors').read_bytes() == content  # two at once write the same


def test_nothing_is_written_where_all_is_there(folder, monkeypatch):
    """So that it may lie where nothing can be written."""
    (folder / 'header.json').unlink()
    monkeypatch.setattr('deit_plugin.teacher_cache.header.write_whole', None)
    for mode in ('auto', 'replay'):
        open_record(folder, mode, range(2))


def test_missing_epochs_are_named(folder):
    message = 'epochs 2 to 4, 7 are missing in .*; epochs 0 to 1 are there'
    with pytest.raises(ValueError, match=message):
        open_record(folder, 'replay', [0, 2, 3, 4, 7])
    assert epochs_named([]) == 'epochs none are'
    assert epochs_named(range(0, 20, 2)) == 'epochs 0, 2, 4, 6, 8 and 5 more are'


def test_each_flipped_byte_is_found(folder, capsys):
    path = folder / 'epoch-0001.safetensors'
    content = path.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match='epoch-0001.safetensors'):
            read_epoch(str(path))
    assert main(['label', '--check', str(folder)]) == 1
    output = capsys.readouterr().out
    assert 'epoch 0 is sound' in output and f'{path} is damaged' in output
    with pytest.raises(ValueError, match='damaged.*Copy it anew'):
        open_record(folder).read(1)
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match='damaged'):
        open_record(folder)


def test_a_check_of_what_is_sound(folder, capsys):
    assert main(['label', '--check', str(folder)]) == 0
    assert f'{folder}: epochs 0 to 1 are sound' in capsys.readouterr().out
    (folder / 'epoch-0001.safetensors').rename(folder / 'epoch-0002.safetensors')
    assert main(['label', '--check', str(folder)]) == 1
    assert 'should be epoch-0001.safetensors' in capsys.readouterr().out
    assert main(['label', '--check', str(folder / 'nothing')]) == 2
    assert 'There is no record of a teacher' in capsys.readouterr().err
    assert main(['label']) == main(['label', '--check', str(folder), '--epochs', '0:1']) == 2


def test_two_records_are_put_together(folder, tmp_path, capsys):
    other = open_record(tmp_path / 'other', wanted=range(2, 4))
    for number in (2, 3):
        path = other.write(number, [CLASSES], {})
        (folder / f'epoch-{number:04d}.safetensors').write_bytes(open(path, 'rb').read())
    assert open_record(folder, 'replay', range(4)).recorded == {0, 1, 2, 3}
    path = open_record(tmp_path / 'of another', found=fingerprint(seed=1)).write(4, [CLASSES], {})
    (folder / 'epoch-0004.safetensors').write_bytes(open(path, 'rb').read())
    with pytest.raises(ValueError, match='epoch-0004.* of another run(.|\n)*seed: 1 -> 0'):
        open_record(folder)
    assert main(['label', '--check', str(folder)]) == 1
    assert 'seed: 0 -> 1' not in (output := capsys.readouterr().out) and 'seed: 1 -> 0' in output


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(seed=1), 'seed: 0 -> 1'),
        (dict(topk=2), 'topk: 0 -> 2'),
        (dict(batch_size=3), 'batch_size: 2 -> 3'),
        (dict(teacher_weights=[dict(name='teacher.pth', sha256='b' * 64)]), 'teacher_weights.0.sha256'),
        (dict(teacher_weights=[dict(name='other.pth', sha256=None)]), 'teacher_weights.0.name'),
    ],
)
def test_another_recipe_is_named(changes, message, folder):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for left in ('epoch-0000.safetensors', 'header.json'):
        with pytest.raises(ValueError, match=f'{left} are of another run(.|\n)*{message}'):
            open_record(folder, found=fingerprint(**changes))
        for path in folder.glob('epoch*'):
            path.unlink()  # the header alone tells then
    assert (folder / 'header.json').read_bytes() == before[folder / 'header.json']


def test_weights_are_known_by_their_hash_or_else_their_name(folder):
    for name, sha256 in (('renamed.pth', 'a' * 64), ('teacher.pth', None)):
        open_record(folder, found=fingerprint(teacher_weights=[dict(name=name, sha256=sha256)]))


def test_what_changes_by_a_rounding_is_told(folder):
    found = dict(fingerprint(), recorded_on=dict(device='cuda'))
    assert open_record(folder, found=found).differences == ['device: "cpu" -> "cuda"']


@pytest.mark.parametrize('name', ['rank0.labels', 'header.json'])
def test_the_old_format(name, tmp_path):
    (tmp_path / name).write_text(json.dumps(dict(format=1, iterations=5)))
    with pytest.raises(ValueError, match='old format(.|\n)*another'):
        open_record(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('content', ['[]', '{"side": 256}', '[' * 10**5])
def test_a_folder_of_something_else(content, tmp_path):
    (tmp_path / 'header.json').write_text(content)
    with pytest.raises(ValueError, match='something else'):
        open_record(tmp_path)
    assert (tmp_path / 'header.json').read_text() == content
    with pytest.raises(OSError):
        open_record(tmp_path / 'header.json')


@pytest.mark.parametrize('topk, num_classes', [(0, 9), (0, 65_535), (3, 9), (2, 65_536)])
def test_processes_put_their_columns_together(topk, num_classes, tmp_path, monkeypatch):
    """Two write, in batches of one virtual process each, and one reads."""
    shape = (3, 4, 2, topk) if topk else (3, 4, 2)
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(num_classes, shape, generator=generator)
    classes.view(-1)[-1] = num_classes - 1
    tensors = [classes, torch.rand(shape, generator=generator).half().float()][: 1 + bool(topk)]
    ranks = [Answers(6, range(start, start + 2), shape) for start in (0, 2)]
    for step in range(3):
        for process in range(4):
            assert not ranks[1].whole
            images = [tensor[step, process] for tensor in tensors]
            if (step, process) == (2, 3):
                images = [tensor[:1] for tensor in images]  # the last batch is short
            ranks[process // 2].write(Iteration(0, 6 + step, range(process, process + 1), 2), *images)
    assert ranks[1].whole
    monkeypatch.setattr(answers, 'all_gather', lambda tensor: [tensor])
    parts = [rank.gathered(num_classes) for rank in ranks]
    monkeypatch.setattr(answers, 'all_gather', lambda tensor: [*map(torch.from_numpy, bytes_of.pop(0))])
    bytes_of = [
        [answer.numpy().view(np.uint8) for answer in pair] for pair in zip(*(rank._tensors for rank in ranks))
    ]
    arrays = ranks[0].gathered(num_classes)
    for whole, *halves in zip(arrays, *parts):
        np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))
    assert arrays[0].dtype == (np.uint16 if num_classes < 65_536 else np.int32)
    record = open_record(tmp_path, found=fingerprint(topk=topk, num_classes=num_classes))
    record.write(2, arrays, {})
    reader = Answers(6, range(4), shape, record.read(2))
    for step, number in ((0, 8), (1, 8), (2, 7)):
        found = reader.read(Iteration(0, 6 + step, range(4), 2), number, torch.device('cpu'))
        for given, expected in zip(found, tensors, strict=True):
            torch.testing.assert_close(given, expected[step].flatten(0, 1)[:number], rtol=0, atol=0)
    for step in (5, 9):  # of another epoch
        with pytest.raises(IndexError, match=f'step {step} is not in the epoch'):
            reader.read(Iteration(0, step, range(4), 2), 8, torch.device('cpu'))
    with pytest.raises(ValueError, match='step 8 has fewer recorded answers than the 8 images'):
        reader.read(Iteration(0, 8, range(4), 2), 8, torch.device('cpu'))


@pytest.mark.parametrize(
    'values, changes, message',
    [
        (CLASSES + 200, {}, 'the classes 200 to 208, of 9'),
        (CLASSES.astype(np.float32), {}, 'its values are float32'),
        (CLASSES, dict(recorded_on=None), 'its fingerprint is no dictionary'),
    ],
)
def test_odd_files_are_damaged(values, changes, message, folder):
    record = open_record(folder)
    record.fingerprint = dict(record.fingerprint, **changes)
    record.write(1, [values], {})
    with pytest.raises(ValueError, match=f'epoch-0001.safetensors is damaged .*{message}'):
        read_epoch(str(folder / 'epoch-0001.safetensors'))


def test_a_damaged_file_may_be_recorded_anew(folder):
    (folder / 'epoch-0001.safetensors').write_bytes(b'half')
    with pytest.raises(ValueError, match='epoch-0001.safetensors is damaged'):
        open_record(folder)
    open_record(folder, 'record').write(1, [CLASSES], {})
    assert open_record(folder).recorded == {0, 1}
