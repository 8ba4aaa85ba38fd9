"""Downloads that stall, break off or are of another file than their name says."""

import hashlib
import http.server
import os
import re
import socket
import threading
import time

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from deit_plugin.checkpoints import downloads
from deit_plugin.checkpoints.atomic import PARTIAL
from deit_plugin.checkpoints.downloads import fetch, local_file, published_hash

load = CheckpointLoader.load_checkpoint


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `data`, and waits after `sent` bytes of it."""

    protocol_version = 'HTTP/1.1'
    data, sent, headers_sent, asked = b'', None, {}, 0
    done = threading.Event()

    def do_GET(self):
        type(self).asked += 1
        self.send_response(200)
        for name, value in {'Content-Length': str(len(self.data)), **self.headers_sent}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.data[: self.sent])
        self.wfile.flush()
        if self.sent is not None:
            self.done.wait(20)
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    torch.save(dict(a=torch.ones(1000)), tmp_path / 'a.pth')
    data = (tmp_path / 'a.pth').read_bytes()
    handler = type('Own', (Server,), dict(data=data, done=threading.Event()))
    own = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=own.serve_forever, args=(0.01,), daemon=True).start()
    handler.address = f'http://127.0.0.1:{own.server_port}'
    yield handler
    handler.done.set()
    own.shutdown()
    own.server_close()


def kept(tmp_path):
    folder = tmp_path / 'hub' / 'checkpoints'
    return [name for name in os.listdir(folder) if not name.endswith('.lock')] if folder.is_dir() else []


@pytest.mark.parametrize('sent', [0, 1500])
def test_a_server_that_stalls_is_not_waited_for(sent, server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, 'TIMEOUT', 0.3)
    server.sent = sent
    start = time.monotonic()
    with pytest.raises(OSError, match=r'a\.pth cannot be downloaded: .*timed out.*Try again'):
        load(f'{server.address}/a.pth')
    assert time.monotonic() - start < 10 and kept(tmp_path) == []
    server.sent = None
    assert load(f'{server.address}/a.pth')['a'].sum() == 1000  # the lock is free


def test_a_server_that_does_not_answer_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(downloads, 'TIMEOUT', 0.3)
    with socket.create_server(('127.0.0.1', 0)) as listening:
        address = f'http://127.0.0.1:{listening.getsockname()[1]}/a.pth'
        with pytest.raises(OSError, match='cannot be downloaded: .*timed out'):
            load(address)
    assert kept(tmp_path) == []


@pytest.mark.parametrize('length', [8, 32, 64])
def test_a_download_of_another_hash_is_not_kept(length, server, tmp_path):
    name = f'a-{"abcdef0123456789" * 4:.{length}}.pth'
    with pytest.raises(ValueError, match=rf'is not the published file: .*not with {name[2:-4]}\. Try again'):
        load(f'{server.address}/{name}')
    assert kept(tmp_path) == []


@pytest.mark.parametrize('length', [8, 32, 64])
def test_what_was_downloaded_earlier_is_compared_each_time(length, server, tmp_path):
    """Here by somebody who wrote into the cache; it is not loaded, and not replaced behind his back."""
    name = f'a-{hashlib.sha256(server.data).hexdigest():.{length}}.pth'
    load(f'{server.address}/{name}')
    path = tmp_path / 'hub' / 'checkpoints' / name
    torch.save(dict(a=torch.zeros(1000)), path)
    for _ in range(2):
        with pytest.raises(
            ValueError, match=f'{name}, downloaded earlier, is not the published file.*Delete it'
        ):
            load(f'{server.address}/{name}')
    path.unlink()
    assert load(f'{server.address}/{name}')['a'].sum() == 1000
    assert server.asked == 2


def test_what_a_killed_download_left_is_removed(server, tmp_path):
    path = local_file(f'{server.address}/a.pth')
    os.makedirs(os.path.dirname(path))
    others = [f'{path}.mine', f'{path}x.0{PARTIAL}']
    for left in (f'{path}.0{PARTIAL}', *others):
        with open(left, 'w') as file:
            file.write('half')
    assert fetch(f'{server.address}/a.pth') == path
    assert sorted(kept(tmp_path)) == sorted(map(os.path.basename, (path, *others)))


@pytest.mark.parametrize(
    'name, expected',
    [
        ('regnety_160-a5fe301d.pth', 'a5fe301d'),
        ('https://a/b/c-a5fe301d.pth?x=1', 'a5fe301d'),
        (f'a-{"a" * 64}.safetensors', 'a' * 64),
        (f'a-{"a" * 65}.pth', None),
        ('a-a5fe301.pth', None),
        ('a-A5FE301D.pth', None),
        ('deit_20210831-20210831.pth', None),
        ('a-a5fe301d', None),
        ('model.pth', None),
    ],
)
def test_the_hash_of_a_published_name(name, expected):
    assert published_hash(name) == expected


def test_a_download_stays_in_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    for address in (
        'http://a/../../b.pth',
        'http://a/%2e%2e/b.pth',
        'http://a',
        'https://a/..',
        'http://a/x\\y.pth',
    ):
        folder, name = os.path.split(local_file(address))
        assert folder == str(tmp_path / 'hub' / 'checkpoints') and re.match('[0-9a-f]{32}-', name)
