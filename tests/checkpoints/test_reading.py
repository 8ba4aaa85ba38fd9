import argparse
import functools
import http.server
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

load = CheckpointLoader.load_checkpoint


def test_mmengine_checkpoint_is_read_as_data(tmp_path):
    log = HistoryBuffer()
    for value in (1.0, 2.0, 6.0):
        log.update(value)
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(
        dict(
            message_hub=dict(log_scalars=dict(loss=log)),
            metric=np.float64(0.5),
            half=np.float16(0.5),
            flags=np.array([True]),
        ),
        path,
    )
    for read in (torch.load, lambda p: torch.load(p, weights_only=True), load):
        checkpoint = read(path)
        restored = checkpoint['message_hub']['log_scalars']['loss']
        assert restored.mean() == 3 and restored.statistics('max') == 6
        assert checkpoint['metric'] == 0.5 and checkpoint['flags'].all()


def test_checkpoint_written_under_numpy_1(tmp_path):
    """numpy 1 calls its core module `numpy.core`."""
    path = tmp_path / 'old.pth'
    torch.save(dict(a=np.arange(3.0), b=np.float64(2)), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b'numpy._core.multiarray' in data
    path.write_bytes(data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    checkpoint = load(str(path))
    assert checkpoint['a'].tolist() == [0, 1, 2] and checkpoint['b'] == 2


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    'call',
    [
        lambda marker: (os.system, (f'touch {marker}',)),
        lambda marker: (eval, (f'open({str(marker)!r}, "w")',)),
        # The door that was opened for HistoryBuffer leads nowhere else.
        lambda marker: (getattr, (HistoryBuffer, '__init__')),
        lambda marker: (getattr, (HistoryBuffer, '__subclasses__')),
        lambda marker: (getattr, (np.ndarray, 'tofile')),
    ],
)
def test_code_in_a_checkpoint_is_refused(tmp_path, call):
    marker, path = tmp_path / 'was_run', str(tmp_path / 'evil.pth')
    torch.save(dict(state_dict={}, meta=Evil(call(marker))), path)
    with pytest.raises(pickle.UnpicklingError, match='evil.pth is refused, nothing'):
        load(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)
    assert not marker.exists()


@pytest.mark.parametrize('keep', [0, 10, 2000])
def test_truncated_checkpoint(tmp_path, keep):
    path = tmp_path / 'cut.pth'
    torch.save(dict(state_dict=dict(a=torch.zeros(1000))), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf'cut.pth.*damaged.*{keep} bytes'):
        load(str(path))


def test_not_a_checkpoint(tmp_path):
    torch.save(torch.zeros(3), tmp_path / 'tensor.pth')
    with pytest.raises(ValueError, match='holds a Tensor'):
        load(str(tmp_path / 'tensor.pth'))
    with pytest.raises(FileNotFoundError, match="'missing.pth'"):
        load('missing.pth')


def test_arguments_of_a_training_script_are_data(tmp_path):
    path = str(tmp_path / 'checkpoint.pth')
    torch.save(dict(model={}, args=argparse.Namespace(lr=0.1)), path)
    assert load(path)['args'].lr == 0.1


@pytest.fixture
def address(tmp_path, monkeypatch):
    """A web server on this machine, and an empty cache."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'www').mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'www')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


def test_downloads_are_read_as_data(tmp_path, address):
    torch.save(dict(state_dict=dict(a=torch.ones(2))), tmp_path / 'www' / 'good.pth')
    assert load(f'{address}/good.pth')['state_dict']['a'].sum() == 2
    (tmp_path / 'www' / 'good.pth').unlink()
    load(f'{address}/good.pth')  # not downloaded again
    marker = tmp_path / 'was_run'
    torch.save(Evil((os.system, (f'touch {marker}',))), tmp_path / 'www' / 'evil.pth')
    with pytest.raises(pickle.UnpicklingError, match='is refused'):
        load(f'{address}/evil.pth')
    assert not marker.exists()
