"""The layout of a file of `torch.save`, and that a sound one is read as torch reads it."""

import io
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from conftest import make_runner
from mmengine.logging import HistoryBuffer

from deit_plugin.checkpoints.loaders import load_from_local

WEIGHTS = OrderedDict(a=torch.arange(1000.0), b=torch.ones(7))
END, LOCATOR, END_64 = b'PK\x05\x06', b'PK\x06\x07', b'PK\x06\x06'


@pytest.fixture
def sound(tmp_path):
    torch.save(dict(state_dict=WEIGHTS), tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


def same(found):
    weights = found['state_dict']
    return list(weights) == list(WEIGHTS) and all(torch.equal(weights[n], WEIGHTS[n]) for n in WEIGHTS)


def entry(data, name):
    """Where the entry of a part in the directory begins."""
    at = data.index(b'PK\x01\x02')
    while True:
        length = struct.unpack_from('<H', data, at + 28)[0]
        if data[at + 46 : at + 46 + length].endswith(name):
            return at
        at = data.index(b'PK\x01\x02', at + 46)


def patched(name, offset, form, *values):
    """Another number in the directory's entry of a part."""

    def change(data):
        data = bytearray(data)
        struct.pack_into(form, data, entry(data, name) + offset, *values)
        return bytes(data)

    return change


@pytest.mark.parametrize(
    'change',
    [
        patched(b'data/0', 38, '<I', 0x10),  # to DOS a folder
        patched(b'data/0', 38, '<I', 0o40755 << 16),  # to Unix
        patched(b'data/0', 38, '<I', 0o120777 << 16),  # a link
        patched(b'data.pkl', 38, '<I', 0x10),
    ],
)
def test_attributes_of_a_part_change_nothing(change, sound):
    """To torch a folder is empty, so that the memory of the weights stays as it was."""
    sound.write_bytes(change(sound.read_bytes()))
    assert same(load_from_local(str(sound)))


def two_directories(data):
    """Of zip64, the second with nothing in it."""
    at = data.rindex(END_64)
    end = bytearray(data[at : data.rindex(LOCATOR)])
    struct.pack_into('<QQQQ', end, 24, 0, 0, 0, at)
    locator = bytearray(data[data.rindex(LOCATOR) : data.rindex(END)])
    struct.pack_into('<Q', locator, 8, at)
    return data[: data.rindex(END)] + bytes(end) + bytes(locator) + data[data.rindex(END) :]


@pytest.mark.parametrize(
    'change, reason',
    [
        (patched(b'data/0', 10, '<H', 8), 'parts are not those'),  # compressed
        (patched(b'data/0', 16, '<I', 1), 'part data/0 does not match its checksum'),
        (patched(b'data.pkl', 16, '<I', 1), 'part data.pkl does not match its checksum'),
        (patched(b'data/0', 20, '<II', 1 << 30, 1 << 30), 'parts are not those'),
        (patched(b'data/0', 20, '<II', 3000, 3000), 'checksum|bytes, not'),
        (patched(b'data/1', 46, '4s', b'zzzz'), 'parts are not those'),  # in another folder
        (patched(b'data/1', 42, '<I', 70), 'not where its directory says'),
        (lambda data: b'junk' * 16 + data, 'does not begin|parts are not those'),
        (lambda data: data + data, 'parts are not those'),
        (two_directories, 'parts are not those|no part data.pkl|is damaged'),
        (lambda data: data[:-30], 'is damaged'),
        (lambda data: data.replace(b'data.pkl', b'data.pkx'), 'no part data.pkl'),
        (lambda data: data.replace(b'data/1', b'data/9'), 'no part data/1'),
    ],
)
def test_an_odd_zip_is_refused(change, reason, sound):
    sound.write_bytes(change(sound.read_bytes()))
    with pytest.raises(ValueError, match=reason):
        load_from_local(str(sound))


@pytest.mark.parametrize('twice', ['data.pkl', 'data/0', 'mine'])
def test_a_part_of_a_name_that_is_there_is_refused(twice, sound):
    with zipfile.ZipFile(sound, 'a') as archive, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for _ in range(2 if twice == 'mine' else 1):
            archive.writestr(f'a/{twice}', bytes(4000))
    with pytest.raises(ValueError, match='parts are not those'):
        load_from_local(str(sound))


def test_a_folder_in_the_zip_changes_nothing(sound):
    with zipfile.ZipFile(sound, 'a') as archive:
        archive.mkdir('a/data/') if hasattr(archive, 'mkdir') else archive.writestr('a/data/', '')
    assert same(load_from_local(str(sound)))


def test_more_than_the_file_holds_is_not_made(tmp_path):
    """Each part lies over the same bytes, and says that it is as large as the file."""
    torch.save(dict(state_dict={str(i): torch.zeros(10_000) for i in range(50)}), tmp_path / 'a.pth')
    data = bytearray((tmp_path / 'a.pth').read_bytes())
    for i in range(50):
        struct.pack_into('<II', data, entry(data, f'data/{i}'.encode()) + 20, len(data) - 9, len(data) - 9)
    (tmp_path / 'a.pth').write_bytes(data)
    with pytest.raises(ValueError, match='parts are not those'):
        load_from_local(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize(
    'change, reason',
    [
        (lambda data: data.replace(b'FloatStorage', b'DoubleStorage', 1), 'is damaged'),
        (lambda data: data[:-36] + struct.pack('<q', 6) + data[-28:], 'has .* values, not'),
        (lambda data: b'\x80\x02K\x01.' + data, 'not of torch.save'),
        (lambda data: b'\x80\x02N.', 'not of torch.save'),
    ],
)
def test_an_odd_file_of_before_is_refused(change, reason, tmp_path):
    torch.save(torch.ones(7), tmp_path / 'a.pth', _use_new_zipfile_serialization=False)
    (tmp_path / 'a.pth').write_bytes(change((tmp_path / 'a.pth').read_bytes()))
    with pytest.raises(ValueError, match=reason):
        load_from_local(str(tmp_path / 'a.pth'))


def test_a_file_of_a_machine_of_the_other_byte_order(sound):
    """As torch writes it there, parts and mark alike."""
    with zipfile.ZipFile(sound) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(sound, 'w') as archive:
        for name, data in parts.items():
            if name.endswith('byteorder'):
                data = b'big'
            elif '/data/' in name:
                data = np.frombuffer(data, '<f4').astype('>f4').tobytes()
            archive.writestr(name, data)
    assert same(load_from_local(str(sound)))


# --- a sound one ----------------------------------------------------------


def compare(found, expected, path=''):
    """Values, types, their order, and what shares memory or is the same."""
    assert type(found) is type(expected) or isinstance(found, np.ndarray), path
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and found.shape == expected.shape, path
        assert found.stride() == expected.stride() and found.requires_grad == expected.requires_grad, path
        assert found.storage_offset() == expected.storage_offset(), path
        assert bytes(found.untyped_storage()) == bytes(expected.untyped_storage()), path
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert found.dtype == expected.dtype and found.shape == expected.shape, path
        assert found.tobytes() == expected.tobytes(), path
    elif isinstance(expected, HistoryBuffer):
        compare(*(dict(sorted(vars(log).items())) for log in (found, expected)), path)
    elif isinstance(expected, dict):
        assert list(found) == list(expected), path
        for name in expected:
            compare(found[name], expected[name], f'{path}.{name}')
        if attributes := getattr(expected, '__dict__', {}):
            compare(vars(found), attributes, path)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), path
        for i, pair in enumerate(zip(found, expected)):
            compare(*pair, f'{path}.{i}')
    else:
        assert found == expected or found != found, path


def both_ways(path):
    found, expected = load_from_local(str(path)), torch.load(path, weights_only=False)
    compare(found, expected)
    return found


def memory(content):
    """Which tensors lie in the same memory, by their numbers."""
    tensors = []

    def collect(value):
        if isinstance(value, torch.Tensor):
            tensors.append(value.untyped_storage().data_ptr())
        elif isinstance(value, (dict, list, tuple)):
            for item in value.values() if isinstance(value, dict) else value:
                collect(item)

    collect(content)
    return [tensors.index(pointer) for pointer in tensors]


@pytest.mark.parametrize('old', [True, False])
def test_a_checkpoint_of_mmengine_is_read_as_torch_reads_it(old, tmp_path, distilled_cfg):
    distilled_cfg.update(teacher=None)
    distilled_cfg['head']['loss']['mode'] = 'none'
    hooks = [dict(type='EMAHook', momentum=0.1)]
    make_runner(distilled_cfg, tmp_path, scores=(np.float32(1.0),), custom_hooks=hooks).train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    del checkpoint['meta']['weights_sha256']
    checkpoint['state_dict']['tied'] = checkpoint['state_dict']['head.layers.head.weight'][1:]
    checkpoint['message_hub']['runtime_info'].update(
        score=np.float64(0.5), flag=np.bool_(True), counts=np.arange(3), late=Counter([3, 3])
    )
    torch.save(checkpoint, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
    found = both_ways(tmp_path / 'a.pth')
    assert memory(found) == memory(torch.load(tmp_path / 'a.pth', weights_only=False))
    assert len(found['optimizer']['state']) > 10 and found['state_dict']._metadata
    log = found['message_hub']['log_scalars']['train/loss']
    assert type(log) is HistoryBuffer and log.statistics('mean') == log.mean()


DTYPES = [
    'float16',
    'bfloat16',
    'float64',
    'int8',
    'uint8',
    'int16',
    'int64',
    'bool',
    'complex64',
    'complex128',
]


@pytest.mark.parametrize('name', [*DTYPES, 'uint16', 'uint64', 'float8_e4m3fn', 'float8_e5m2'])
def test_a_tensor_of_any_type_is_read_as_torch_reads_it(name, tmp_path):
    dtype = getattr(torch, name)
    if dtype.is_floating_point or dtype.is_complex:
        value = torch.linspace(-3, 3, 24).to(dtype).reshape(4, 6)
    else:
        value = torch.arange(24).to(dtype).reshape(4, 6)
    torch.save(dict(a=value, b=value[1:, ::2], c=torch.nn.Parameter(value[0], False)), tmp_path / 'a.pth')
    assert type(both_ways(tmp_path / 'a.pth')['c']) is torch.nn.Parameter


@pytest.mark.parametrize(
    'content',
    [
        (1, (2, ()), [None, True], {3}, 1.5, -1, 2**40, 1j, 'ä', b'\xff', bytearray(b'a'), b''),
        OrderedDict([(3, torch.Size([1, 2])), ('a', torch.device('cuda', 1)), (None, torch.float16)]),
        [np.float64(1), np.array([]), np.zeros((0, 3)), np.asfortranarray(np.ones((2, 3))), np.array(3)],
        dict(grad=torch.ones(2, requires_grad=True), empty=torch.ones(0, 3), scalar=torch.tensor(3)),
    ],
)
@pytest.mark.parametrize('old', [True, False])
def test_other_data_are_read_as_torch_reads_them(content, old, tmp_path):
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
    both_ways(tmp_path / 'a.pth')


def test_an_ordered_dict_of_python_2_is_its_pairs(tmp_path):
    """Which stored them as arguments."""
    content = (
        b'\x80\x02ccollections\nOrderedDict\n](](X\x01\x00\x00\x00aK\x01e](X\x01\x00\x00\x00bK\x02ee\x85R.'
    )
    parts = [torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION, {}]
    file = io.BytesIO()
    for part in parts:
        torch.serialization.pickle.dump(part, file, 2)
    file.write(content)
    torch.serialization.pickle.dump([], file, 2)
    (tmp_path / 'a.pth').write_bytes(file.getvalue())
    assert list(both_ways(tmp_path / 'a.pth')) == ['a', 'b']
