"""What is small in a file and large for whoever goes through it, and what is no data."""

import argparse
import copy
import io
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from deit_plugin.checkpoints.loaders import load_from_local
from deit_plugin.checkpoints.pickled import Global, OddTensor
from deit_plugin.checkpoints.safe_globals import Log, Refused
from deit_plugin.checkpoints.unfolding import check_content

GIGABYTE = 1 << 30


def nested(depth, kind=list):
    value = kind()
    for _ in range(depth - 1):
        value = kind([value]) if kind is not dict else dict(a=value)
    return value


def doubled(times, join=lambda value: [value, value]):
    value = [0]
    for _ in range(times):
        value = join(value)
    return value


def circle():
    value = dict(a=[])
    value['a'].append((value,))
    return value


@pytest.mark.parametrize(
    'value',
    [
        None,
        {1, 'a'},
        Counter(a=1),
        argparse.Namespace(a=[1]),
        dict(a=torch.ones(2), b=np.ones(2), c=np.float32(1), d=torch.float32, e=torch.device('cpu')),
        HistoryBuffer([1.0], [1]),
        nested(100),
        doubled(17),
        list(range(10_000)),
        ['a' * 1000] * 10_000,
    ],
)
def test_data_pass(value):
    check_content(value, 0)


@pytest.mark.parametrize(
    'value, reason',
    [
        (nested(101), 'more than 100 deep'),
        (nested(101, tuple), 'more than 100 deep'),
        (nested(101, dict), 'more than 100 deep'),
        (doubled(60), 'unfolds to millions'),
        (doubled(60, lambda value: dict(a=value, b=value)), 'unfolds to millions'),
        (doubled(60, lambda value: argparse.Namespace(a=value, b=value)), 'unfolds to millions'),
        ([[0] * 1000] * 2000, 'unfolds to millions'),
        (circle(), 'holds itself'),
        (['a' * 100_000] * 1000, 'of 100000000 bytes, but it stores 0'),
        ([b'a' * 100_000] * 1000, 'of 100000000 bytes, but it stores 0'),
        ([bytearray(100_000)] * 1000, 'of 100000000 bytes, but it stores 0'),
        (dict.fromkeys(range(20), torch.zeros(1).expand(10**7)), 'of 800000000 bytes'),
    ],
)
def test_what_unfolds_is_refused(value, reason):
    with pytest.raises(ValueError, match=reason):
        check_content(value, 0)


@pytest.mark.parametrize(
    'value', [print, object(), Global('a'), Log.__new__(Log), [HistoryBuffer], {frozenset([1]): 1}]
)
def test_what_is_no_data_is_refused(value):
    with pytest.raises(Refused, match='as a value'):
        check_content(value, 0)


@pytest.mark.parametrize(
    'content, reason',
    [
        (dict(a=1, b=dict(c=OddTensor('sparse'))), 'b.c is a tensor that is sparse, not a dense one'),
        ([OddTensor('sparse')], 'a tensor that is not dense'),
    ],
)
def test_a_tensor_that_is_not_dense_is_named(content, reason):
    with pytest.raises(Refused, match=reason):
        check_content(content, 0)


def test_what_is_stored_may_be_as_large_as_it_is():
    large = torch.zeros(1).expand(GIGABYTE // 4)
    check_content(dict(a=large), GIGABYTE)
    check_content(dict(a=large, b=large), GIGABYTE)
    with pytest.raises(ValueError, match='but it stores'):
        check_content(dict.fromkeys('abcde', large), GIGABYTE)


def read(content, path):
    torch.save(content, path)
    return load_from_local(str(path))


def test_hundreds_of_layers_over_one_tensor_are_refused(tmp_path):
    """A file of a megabyte that would fill whoever makes each weight his own."""
    shared = torch.ones(512, 512)
    with pytest.raises(ValueError, match='but it stores'):
        read(OrderedDict((f'layers.{i}.weight', shared) for i in range(400)), tmp_path / 'a.pth')


def test_a_view_that_repeats_a_value_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'of 42949672\d\d bytes, but it stores'):
        read(dict(a=torch.zeros(1).expand(GIGABYTE)), tmp_path / 'a.pth')


@pytest.mark.parametrize('old', [True, False])
def test_weights_that_share_memory_still_do(old, tmp_path):
    """As tied ones do; and views of a whole."""
    whole = torch.arange(12.0).reshape(3, 4)
    content = dict(a=whole, again=whole, row=whole[1], turned=whole.t(), other=whole.clone())
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=not old)
    found = load_from_local(str(tmp_path / 'a.pth'))
    for name, value in content.items():
        assert torch.equal(found[name], value) and found[name].stride() == value.stride()
    assert found['a'] is found['again']
    found['row'].zero_()
    assert not found['a'][1].any() and not found['turned'][:, 1].any() and found['other'][1].all()


def test_what_was_read_can_be_copied_and_saved_again(tmp_path):
    content = read(dict(log=HistoryBuffer([1.0], [1]), a=np.ones(2), b=torch.ones(2)), tmp_path / 'a.pth')
    torch.save(copy.deepcopy(content), io.BytesIO())
