"""JSON that others wrote."""

import os

import pytest

from deit_plugin import json_file
from deit_plugin.checkpoints.reading import config_beside, file_in
from deit_plugin.engine.work_folder import WorkFolder
from deit_plugin.json_file import read_json

NONE = [
    (b'', 'Expecting value'),
    (b'{', 'Expecting'),
    (b'\xff\xfe{}', 'utf-8'),
    (b'{"a": "\xe4"}', 'utf-8'),
    (b'[' * 100_000, 'nested too deep'),
    (b'{"a":' * 100_000, 'nested too deep'),
    (b'1' * 5000, '4300'),
    (b'{"a": 1} 2', 'Extra data'),
]


pytestmark = pytest.mark.usefixtures('in_time')


@pytest.mark.parametrize('data, expected', [(b'{}', {}), (b' [1, "\xc3\xa4"] ', [1, 'ä']), (b'null', None)])
def test_json_is_read(data, expected, tmp_path):
    (tmp_path / 'a.json').write_bytes(data)
    assert read_json(str(tmp_path / 'a.json')) == expected


@pytest.mark.parametrize('data, reason', NONE)
def test_what_is_none_is_told(data, reason, tmp_path):
    (tmp_path / 'a.json').write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_json(str(tmp_path / 'a.json'))


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: os.symlink('/dev/zero', path)])
def test_what_is_no_file_is_not_opened(make, tmp_path):
    """Of a pipe the reader would wait for ever."""
    make(tmp_path / 'a.json')
    with pytest.raises(ValueError, match='a.json is no file'):
        read_json(str(tmp_path / 'a.json'))


def test_a_lost_one_is_told(tmp_path):
    (tmp_path / 'link').symlink_to('lost')
    for name in ('lost', 'link'):
        with pytest.raises(FileNotFoundError):
            read_json(str(tmp_path / name))


def test_a_large_one_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, '_LARGEST', 10)
    (tmp_path / 'a.json').write_text('[1, 2, 3, 4]')
    with pytest.raises(ValueError, match='a.json has 12 bytes'):
        read_json(str(tmp_path / 'a.json'))


@pytest.mark.parametrize(
    'content', [*(data for data, _ in NONE), b'{}', b'[1]', b'{"model_type": ["deit"]}', None]
)
def test_a_config_beside_that_is_none_is_nothing(content, tmp_path):
    config = tmp_path / 'config.json'
    config.write_bytes(content) if content is not None else os.mkfifo(config)
    assert config_beside(str(tmp_path)) == {}


@pytest.mark.parametrize('content', [*(data for data, _ in NONE), b'{}', b'null', None])
def test_a_list_of_a_work_folder_that_is_none_is_empty(content, tmp_path):
    path = tmp_path / '.training.json'
    path.write_bytes(content) if content is not None else os.mkfifo(path)
    folder = WorkFolder(str(tmp_path))
    assert not folder.wrote('epoch_1.pth')
    folder.add('epoch_1.pth')
    assert folder.wrote('epoch_1.pth') and path.is_file()


@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: path.write_bytes(b'\xff\0\n' * 5000)])
def test_an_odd_pointer_in_a_work_folder_names_nothing(make, tmp_path):
    make(tmp_path / 'last_checkpoint')
    with pytest.raises(FileNotFoundError, match='a folder without weights'):
        file_in(str(tmp_path))
