"""What a pickle of `torch.save` may ask for, by opcode, by call and by state."""

import argparse
import pickle
import time
from collections import Counter, OrderedDict
from fractions import Fraction

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from written import START, call, doubled, named, number, pair, storage, tensor, text, write

load = CheckpointLoader.load_checkpoint


def saved(content, path):
    torch.save(content, path)
    return str(path)


def refuse(path, reason, error=pickle.UnpicklingError):
    with pytest.raises(error, match=reason):
        load(path)


@pytest.mark.parametrize('name', ['get', 'items', 'keys', 'update', 'mine'])
def test_an_attribute_of_a_dict_is_refused(name, tmp_path):
    """It would stand for the method of whoever goes through the weights."""
    state = b'}(' + text('_metadata') + b'}' + text(name) + text('other') + b'u'
    pickled = call('collections', 'OrderedDict') + state + b'b'
    refuse(write(tmp_path / 'a.pth', START + pickled + b'.'), 'attributes of a dict')


def test_of_the_metadata_of_a_state_dict_the_versions_stay(tmp_path):
    """`assign_to_params_buffers` would put the file's tensors in the place of a model's own."""
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    weights = model.state_dict()
    versions = {name: dict(of) for name, of in weights._metadata.items()}
    weights._metadata['0'].update(assign_to_params_buffers=True, mine=[1])
    weights._metadata['1']['version'] = 2
    found = load(saved(weights, tmp_path / 'a.pth'))
    assert found._metadata == versions and versions['1'] == dict(version=2)
    before = model[0].weight
    model.load_state_dict(found)
    assert model[0].weight is before and before.data_ptr() != found['0.weight'].data_ptr()


@pytest.mark.parametrize('odd', ['2', None, 2.0, True, [2]])
def test_an_odd_version_is_none(odd, tmp_path):
    weights = OrderedDict(a=torch.ones(1))
    weights._metadata = OrderedDict({'': dict(version=odd)})
    assert load(saved(weights, tmp_path / 'a.pth'))._metadata == {'': {}}


@pytest.mark.parametrize('odd', [3, [1], {1: {}}, {'a': 3}, {'a': {1: 2}}, None])
def test_odd_metadata_is_refused(odd, tmp_path):
    weights = OrderedDict(a=torch.ones(1))
    weights._metadata = odd
    refuse(saved(weights, tmp_path / 'a.pth'), 'attributes of a dict')


def test_numbers_that_share_their_place_in_a_dict_are_refused(tmp_path):
    """Python's hash of an integer is its rest by 2 ** 61 - 1."""
    numbers = {(2**61 - 1) << 12 + i: None for i in range(100)}
    assert len({hash(n) for n in numbers}) < 62
    refuse(saved(numbers, tmp_path / 'a.pth'), 'a number of 10 bytes')
    sound = [2**64 - 1, -(2**63), 0, 255, -1]
    assert load(saved(sound, tmp_path / 'b.pth')) == sound


DEEP = b'K\x01' + b'\x85' * 300  # as many as a million would end the process
KEYS = dict(
    tuple=pair(number(1), number(2)),
    deep=DEEP,
    size=call('torch', 'Size', b'(K\x01t'),
    complex=call('builtins', 'complex', number(1), number(2)),
)
HOLDERS = dict(
    setitem=lambda key: b'}' + key + b'Ns',
    setitems=lambda key: b'}(' + key + b'Nu',
    of_an_ordered_dict=lambda key: call('collections', 'OrderedDict') + key + b'Ns',
    of_a_counter=lambda key: call('collections', 'Counter') + b'(' + key + b'Nu',
    pairs=lambda key: call('collections', 'OrderedDict', b']' + pair(key, b'N') + b'a'),
    set=lambda key: call('builtins', 'set', b']' + key + b'a'),
    counted=lambda key: call('collections', 'Counter', b']' + key + b'a'),
)


@pytest.mark.parametrize('holder', HOLDERS)
@pytest.mark.parametrize('key', KEYS)
def test_keys_that_harm_whoever_hashes_them_are_refused(key, holder, tmp_path):
    """A tuple is as deep as the file likes, and of complex numbers millions have one hash."""
    path = write(tmp_path / 'a.pth', START + HOLDERS[holder](KEYS[key]) + b'.')
    refuse(path, f'a ({"complex" if key == "complex" else "tuple|Size"}) as a key')


def test_entries_of_a_counter_are_not_counted(tmp_path):
    """`Counter.update` would hash each pair."""
    pickled = HOLDERS['of_a_counter'](text('a'))
    assert load(write(tmp_path / 'a.pth', START + pickled + b'.')) == Counter(a=None)


@pytest.mark.parametrize(
    'pickled',
    [
        b'(' + number(1) + b'l',
        b'(' + named('collections', 'OrderedDict') + b'o',
        b'(icollections\nOrderedDict\n',
        b']2\x86',
        b']]0',
        b'\x82\x01',
        b'\x96' + bytes([4] + [0] * 7) + b'abcd',
        b'\x8b' + bytes([1, 0, 0, 0, 1]),
        b'P0\n',
        b'I1\n',
        b'S"a"\n',
        b'F1.0\n',
        b'\x95' + bytes([1] + [0] * 7) + b'N',
        b'(\x91',
    ],
)
def test_an_opcode_that_torch_does_not_write_is_refused(pickled, tmp_path):
    path = write(tmp_path / 'a.pth', START + pickled + b'.')
    refuse(path, r'what torch\.save does not write')


@pytest.mark.parametrize(
    'pickled, reason',
    [
        (named('collections', 'OrderedDict') + b')\x81', 'an object of collections.OrderedDict'),
        (named('argparse', 'Namespace') + number(1) + b'\x81', 'an object of argparse.Namespace'),
        (text('a') + b')R', "a call of 'a'"),
        (named('torch', 'Size') + b']R', 'a call of torch.Size'),
        (b']}b', r'the state of \[\]'),
        (b'}}b', 'the state of dict'),
        (named('argparse', 'Namespace') + b')\x81}K\x01Nsb', 'the state of'),
        (b'](K\x01Nu', 'entries of'),
        (b'}(K\x01e', 'items of'),
        (b'}K\x01a', 'items of'),
        (named('torch', 'Size'), 'torch.Size as a value'),
        (b']' + named('numpy', 'ndarray') + b'a', 'numpy.ndarray as a value'),
        (call('builtins', 'bytearray', number(9)), 'bytes of'),
        (call('_codecs', 'encode', text('a'), text('idna')), '_codecs.encode to'),
        (call('collections', 'OrderedDict', b']K\x01a'), 'no pairs'),
        (call('collections', 'OrderedDict', text('ab')), 'no pairs'),
        (call('collections', 'Counter', text('ab')), "a Counter of 'ab'"),
        (call('builtins', 'set', text('ab')), "a set of 'ab'"),
        (call('torch.serialization', '_get_layout', b']'), 'a layout of'),
    ],
)
def test_what_is_asked_of_the_wrong_thing_is_refused(pickled, reason, tmp_path):
    refuse(write(tmp_path / 'a.pth', START + pickled + b'.'), reason)


@pytest.mark.parametrize(
    'pickled, reason',
    [
        (call('torch.serialization', '_get_layout', doubled(20)), 'a layout of tuple'),
        (
            call('collections', 'OrderedDict') + text('a') + doubled(20) + b's)\x81',
            r'an object of OrderedDict\)',
        ),
        (
            call('builtins', 'bytes', call('collections', 'OrderedDict') + text('a') + doubled(20) + b's'),
            r'bytes of tuple\)',
        ),
    ],
)
def test_what_is_refused_is_not_written_out(pickled, reason, tmp_path):
    """Of 60 such tuples the text would fill the memory."""
    refuse(write(tmp_path / 'a.pth', START + pickled + b'.'), reason)


@pytest.mark.parametrize('end', [b's' * 100_000, b'Na' + b'a' * 99_999])
def test_a_deep_pickle_takes_no_longer_than_a_flat_one(end, tmp_path):
    deep = (b'}' + text('a')) * 100_000 + b'N' if end[:1] == b's' else b']' * 100_001
    start = time.monotonic()
    refuse(write(tmp_path / 'a.pth', START + deep + end + b'.'), 'more than 100 deep', ValueError)
    assert time.monotonic() - start < 6  # with the stack copied at each step 15


@pytest.mark.parametrize(
    'reference',
    [
        text('x') + b'Q',
        b'(' + text('other') + named('torch', 'FloatStorage') + text('0') + text('cpu') + number(4) + b'tQ',
        b'(' + text('storage') + text('Float') + text('0') + text('cpu') + number(4) + b'tQ',
        storage(numel=-4),
        storage()[:-2] + b'K\x01tQ',
        b'(' + text('storage') + named('torch', 'FloatStorage') + number(0) + text('cpu') + number(4) + b'tQ',
    ],
)
def test_an_odd_reference_to_a_storage_is_refused(reference, tmp_path):
    path = write(tmp_path / 'a.pth', START + reference + b'.', _0=bytes(16))
    refuse(path, 'an odd reference to a storage')


def test_a_storage_of_two_sizes_is_refused(tmp_path):
    both = b']' + tensor(storage(), 0, (4,), (1,)) + b'a' + tensor(storage(numel=2), 0, (2,), (1,)) + b'a.'
    refuse(write(tmp_path / 'a.pth', START + both, _0=bytes(16)), 'a storage of two sizes, 4 and 2')


@pytest.mark.parametrize('size', [0, 15, 17])
def test_a_storage_of_another_size_than_it_says_is_refused(size, tmp_path):
    """Tensors would be views of what lies behind it."""
    path = write(tmp_path / 'a.pth', START + tensor(storage(), 0, (4,), (1,)) + b'.', _0=bytes(size))
    refuse(path, f'its storage 0 has {size} bytes, not 16', ValueError)


@pytest.mark.parametrize(
    'name, expected', [('builtins.bytearray', bytearray(b'\xe4')), ('_codecs.encode', b'\xe4')]
)
def test_bytes_are_those_of_their_text(name, expected, tmp_path):
    pickled = call(*name.split('.'), text('\xe4'), text('latin-1'))
    found = load(write(tmp_path / 'a.pth', START + pickled + b'.'))
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    'offset, size, stride, fits',
    [
        (0, (4,), (1,), True),
        (3, (1,), (99,), True),
        (0, (2, 2), (2, 1), True),
        (0, (0,), (1,), True),
        (0, (5,), (1,), False),
        (4, (1,), (1,), False),
        (0, (2,), (4,), False),
        (0, (2, 2), (3, 1), False),
        (-1, (1,), (1,), False),
        (0, (2,), (-1,), False),
        (0, (2,), (1, 1), False),
    ],
)
def test_a_tensor_is_within_its_storage(offset, size, stride, fits, tmp_path):
    values = np.arange(4, dtype='f4')
    path = write(
        tmp_path / 'a.pth', START + tensor(storage(), offset, size, stride) + b'.', _0=values.tobytes()
    )
    if fits:
        expected = torch.from_numpy(values).as_strided(size, stride, offset)
        assert torch.equal(load(path), expected)
    else:
        refuse(path, 'a tensor of shape .* beyond its storage of 4 values|of odd size')


def test_what_a_user_admitted_is_read_by_torch(tmp_path):
    path = saved(dict(part=Fraction(1, 3)), tmp_path / 'a.pth')
    refuse(path, "'fractions.Fraction'")
    with torch.serialization.safe_globals([Fraction]):
        assert load(path) == dict(part=Fraction(1, 3))
    refuse(path, "'fractions.Fraction'")


def test_what_another_package_forbids_again_is_still_read(tmp_path):
    """As timm does after it read the arguments of a script."""
    path = saved(dict(args=argparse.Namespace(a=1), log=HistoryBuffer([1.0], [1])), tmp_path / 'a.pth')
    torch.serialization.clear_safe_globals()
    assert load(path)['log'].mean() == 1
    assert torch.load(path)['args'].a == 1
