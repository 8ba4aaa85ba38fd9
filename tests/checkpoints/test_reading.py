import argparse
import functools
import hashlib
import http.server
import inspect
import io
import json
import os
import pickle
import threading
import time
from fractions import Fraction

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from deit_plugin.checkpoints import downloads

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


def test_what_another_project_saves_is_read_as_without_us(tmp_path):
    for content in ([1, 2], 'text', torch.zeros(3), dict(model=dict(a=torch.ones(1)), epoch=3)):
        torch.save(content, tmp_path / 'any.pth')
        with_us = load(str(tmp_path / 'any.pth'))
        assert str(with_us) == str(mmengine_checkpoint.load_from_local(str(tmp_path / 'any.pth'), None))
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


@pytest.fixture
def evil(tmp_path, address):
    """A file on the server that runs code where that is allowed, and what it would leave."""
    marker = tmp_path / 'was_run'
    torch.save(Evil((os.system, (f'touch {marker}',))), tmp_path / 'www' / 'evil.pth')
    return f'{address}/evil.pth', marker


@pytest.mark.slow
@pytest.mark.parametrize(
    'table, name',
    [
        ('get_torchvision_models', 'torchvision://evil'),
        ('get_torchvision_models', 'modelzoo://evil'),
        ('get_external_models', 'open-mmlab://evil'),
        ('get_external_models', 'openmmlab://evil'),
        ('get_mmcls_models', 'mmcls://evil'),
        (None, 'https'),
    ],
)
def test_every_scheme_reads_data_alone(evil, table, name, monkeypatch):
    file, marker = evil
    if table:
        monkeypatch.setattr(mmengine_checkpoint, table, lambda: dict(evil=file))
    with pytest.raises(pickle.UnpicklingError, match='is refused'):
        load(name if table else file)
    assert not marker.exists()


def test_every_scheme_of_mmengine_is_covered():
    """Those that are not ours call `torch.load` with its default: data alone since torch 2.6."""
    schemes = CheckpointLoader._schemes
    ours = {p for p, f in schemes.items() if f.__module__ == 'deit_plugin.checkpoints.loaders'}
    assert ours == {
        '',
        'http://',
        'https://',
        'modelzoo://',
        'torchvision://',
        'open-mmlab://',
        'openmmlab://',
        'mmcls://',
    }
    others = {f.__name__ for p, f in schemes.items() if p not in ours}
    assert others == {'load_from_pavi', 'load_from_ceph'}
    for name in others:
        source = inspect.getsource(getattr(mmengine_checkpoint, name))
        assert 'torch.load(' in source and 'weights_only' not in source


def test_the_other_schemes_give_what_mmengine_gives(tmp_path, address, monkeypatch):
    weights = {'backbone.a': torch.ones(2), 'head.b': torch.ones(1)}
    torch.save(dict(state_dict=weights), tmp_path / 'www' / 'a.pth')
    for table in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(mmengine_checkpoint, table, lambda: dict(a=f'{address}/a.pth', local='b.pth'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    torch.save(dict(which=1), tmp_path / 'b.pth')
    monkeypatch.setattr(mmengine_checkpoint, 'get_deprecated_model_names', lambda: dict(old='a'))
    for name in ('torchvision://a', 'modelzoo://a', 'open-mmlab://a', 'openmmlab://old'):
        assert load(name)['state_dict'].keys() == weights.keys()
    assert load('open-mmlab://local') == dict(which=1)
    assert list(load('mmcls://a')['state_dict']) == ['a']


def test_torchs_own_switch_is_obeyed(tmp_path, address, monkeypatch):
    torch.save(Fraction(1, 3), tmp_path / 'www' / 'a.pth')
    for path in (str(tmp_path / 'www' / 'a.pth'), f'{address}/a.pth'):
        with pytest.raises(pickle.UnpicklingError):
            load(path)
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    for path in (str(tmp_path / 'www' / 'a.pth'), f'{address}/a.pth'):
        assert load(path) == Fraction(1, 3)


def test_published_hashes_are_checked(tmp_path, address):
    """As facebookresearch, torchvision and OpenMMLab name their files."""
    torch.save(dict(a=torch.ones(2)), tmp_path / 'a.pth')
    data = (tmp_path / 'a.pth').read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    www = tmp_path / 'www'
    for name in (f'a-{digest[:8]}.pth', f'b_20210831-{digest[:8]}.pth', f'c-{digest}.pth', 'd-20210831.pth'):
        (www / name).write_bytes(data)
        load(f'{address}/{name}')
    (www / 'e-a5fe301d.pth').write_bytes(data)
    with pytest.raises(ValueError, match='e-a5fe301d.pth is not the published file.*not with a5fe301d'):
        load(f'{address}/e-a5fe301d.pth')
    kept = tmp_path / 'cache' / 'hub' / 'checkpoints'
    assert not [f for f in os.listdir(kept) if f.startswith('e-') and not f.endswith('.lock')]
    # One that was downloaded earlier is compared again.
    (kept / f'a-{digest[:8]}.pth').write_bytes(data[:-1] + b'x')
    with pytest.raises(ValueError, match=r'downloaded earlier, is not the published file.*Delete it'):
        load(f'{address}/a-{digest[:8]}.pth')


def test_files_of_one_name_at_two_addresses_are_two(tmp_path, address):
    for folder in 'ab':
        (tmp_path / 'www' / folder).mkdir()
        torch.save(dict(which=folder), tmp_path / 'www' / folder / 'model.pth')
    for folder in 'aba':
        assert load(f'{address}/{folder}/model.pth')['which'] == folder


def test_processes_that_share_a_folder_download_once(tmp_path, address, monkeypatch):
    torch.save(dict(a=torch.ones(2)), tmp_path / 'www' / 'a.pth')
    original, count = downloads._retrieve, []

    def download(*args):
        count.append(1)
        time.sleep(0.2)
        original(*args)

    monkeypatch.setattr(downloads, '_retrieve', download)
    threads = [threading.Thread(target=load, args=(f'{address}/a.pth',)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1


@pytest.mark.parametrize(
    'name, headers, reason',
    [
        (
            'a.pth',
            {'Content-Length': '5000'},
            r'a\.pth cannot be downloaded: .*(broke off after \d+ of|more expected)',
        ),
        ('a.pth', {'Transfer-Encoding': 'chunked'}, r'a\.pth cannot be downloaded: IncompleteRead'),
        ('a.pth', {}, r'a\.pth cannot be downloaded: it broke off or is no checkpoint'),
        ('a.safetensors', {}, r'a\.safetensors cannot be downloaded: it broke off or is no checkpoint'),
        ('tf_model.h5', {}, r'tf_model\.h5 cannot be downloaded: it broke off or is no checkpoint'),
        ('old.pth', {}, r'old\.pth cannot be downloaded: it broke off or is no checkpoint'),
        ('index.json', {}, r'index\.json cannot be downloaded: it broke off or is no checkpoint'),
        ('lost.pth', None, r'lost\.pth cannot be downloaded: HTTP Error 404'),
    ],
)
def test_a_download_that_breaks_off_is_not_kept(name, headers, reason, tmp_path, monkeypatch):
    weights = dict(a=torch.arange(1000.0))
    torch.save(weights, tmp_path / 'a.pth')
    torch.save(weights, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(weights, tmp_path / 'a.safetensors')
    with h5py.File(tmp_path / 'tf_model.h5', 'w') as file:
        file.create_dataset('deit/model/a/kernel:0', data=weights['a'])
    (tmp_path / 'index.json').write_text(json.dumps(dict(weight_map=dict(a='a.safetensors'))))

    class Short(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            if headers is None:
                return self.send_error(404)
            data = (tmp_path / name).read_bytes()
            self.send_response(200)
            for item in headers.items():
                self.send_header(*item)
            self.send_header('Connection', 'close')
            self.end_headers()
            if 'Transfer-Encoding' in headers:
                self.wfile.write(b'%x\r\n' % len(data))
            self.wfile.write(data[: len(data) * 2 // 3])
            self.close_connection = True

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Short)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(OSError, match=reason):
        load(f'http://127.0.0.1:{server.server_port}/{name}')
    server.shutdown()
    assert [f for f in os.listdir(tmp_path / 'hub' / 'checkpoints') if not f.endswith('.lock')] == []


@pytest.mark.parametrize('old', [True, False])
def test_files_without_checksums_are_read(old, tmp_path):
    content = dict(state_dict=dict(a=torch.ones(2)))
    torch.serialization.set_crc32_options(old)
    try:
        torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load(str(tmp_path / 'a.pth'))['state_dict']['a'].sum() == 2


def test_arrays_of_logs_are_stored_as_numpys(tmp_path):
    """What a resumed training saves again is read without this package."""
    log = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(dict(log=log, a=np.arange(3.0), b=np.float32(2), c=np.array([True])), tmp_path / 'a.pth')
    again = torch.load(tmp_path / 'a.pth')
    torch.save(again, tmp_path / 'b.pth')
    plain = torch.load(tmp_path / 'b.pth', weights_only=False)
    assert type(plain['a']) is np.ndarray and plain['a'].tolist() == [0, 1, 2]
    assert plain['b'] == 2 and plain['c'].all() and plain['log'].mean() == 1.5


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(['?', 'b', 'i', 'l', 'q', 'B', 'I', 'e', 'f', 'd', '>f8', '>i4']).flatmap(
        lambda code: arrays(np.dtype(code), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    )
)
def test_plain_arrays_come_back(array):
    stream = io.BytesIO()
    torch.save(array, stream)
    stream.seek(0)
    found = torch.load(stream)
    array = array.astype(array.dtype.newbyteorder('='))  # as numpy reads pickles
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.tobytes() == array.tobytes()
