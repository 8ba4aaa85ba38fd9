"""Random damage to a small checkpoint: whatever is read is what its owner saved."""

import copy
import pickle
import tempfile
import uuid
from pathlib import Path

import pytest
import torch
from conftest import build, distilled, make_runner
from hostile import NAME, rezipped, safetensors_file, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.runner import CheckpointLoader
from test_hostile_files import SCHEDULE, WAYS

from deit_plugin.apis.convert import read_source
from deit_plugin.checkpoints.strict import load_strict

REFUSED = (ValueError, OSError, pickle.UnpicklingError)
FUZZ = settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CFG = distilled(teacher=None, mode='none')
RESUME = dict(custom_hooks=[dict(type='FilledModelHook')], **SCHEDULE)


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sound')
    torch.manual_seed(0)
    make_runner(CFG, folder, scores=(1.0,), **SCHEDULE).train()
    return torch.load(folder / 'epoch_1.pth')


def check(path, checkpoint):
    """By each way into a model, refused in words or read as it was."""
    own = checkpoint['state_dict']
    model = build(CFG)
    ways = [
        lambda: load_strict(model, str(path)) or model.state_dict(),
        lambda: read_source(str(path)).weights,
        lambda: CheckpointLoader.load_checkpoint(str(path), 'cpu')['state_dict'],
    ]
    for way in ways:
        try:
            found = way()
        except REFUSED as error:
            assert str(error)
        else:
            assert found.keys() == own.keys()
            for name, value in found.items():
                assert torch.equal(value, own[name]), name


def damaged(sound, make, change):
    with tempfile.TemporaryDirectory() as folder:
        path = make(copy.deepcopy(sound), Path(folder))
        data = path.read_bytes()
        path.write_bytes(change(data))
        check(path, sound)
        assert sorted(Path(folder).iterdir()) == [path]


@pytest.mark.parametrize('make', [save(), safetensors_file])
@FUZZ
@given(at=st.floats(0, 1), bit=st.integers(0, 7), length=st.integers(1, 4))
def test_flipped_bits(make, sound, at, bit, length):
    def change(data):
        start = min(int(at * len(data)), len(data) - length)
        changed = bytearray(data)
        for i in range(start, start + length):
            changed[i] ^= 1 << bit
        return bytes(changed)

    damaged(sound, make, change)


@FUZZ
@given(at=st.floats(0, 1), bit=st.integers(0, 7), length=st.integers(1, 4))
@pytest.mark.slow
def test_flipped_bits_of_the_pickle_with_a_right_checksum(sound, at, bit, length):
    """So that torch and not the zip has to notice; the weights are signed."""

    def change(parts):
        data = bytearray(parts['a/data.pkl'])
        for i in range(min(int(at * len(data)), len(data) - length), len(data))[:length]:
            data[i] ^= 1 << bit
        parts['a/data.pkl'] = bytes(data)

    damaged(sound, rezipped(change), lambda data: data)


WHOLE = settings(FUZZ, max_examples=24)


@pytest.mark.parametrize('way', WAYS)
@WHOLE
@given(data=st.data())
@pytest.mark.slow
def test_every_way_of_a_user(way, sound, data):
    """A training that starts or goes on, a test, a teacher and a conversion."""
    make = data.draw(st.sampled_from([save(), safetensors_file]))
    with tempfile.TemporaryDirectory() as folder:
        place, work = Path(folder) / 'place', Path(folder) / uuid.uuid4().hex
        place.mkdir(), work.mkdir()
        path = make(copy.deepcopy(sound), place)
        content = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= 1 << data.draw(st.integers(0, 7))
        else:
            del content[at:]
        path.write_bytes(content)
        try:
            loaded = WAYS[way](CFG, path, work)
        except REFUSED as error:
            assert str(error)
        else:
            assert loaded.keys() == sound['state_dict'].keys()
            for name, value in loaded.items():
                assert torch.equal(value, sound['state_dict'][name]), name
        assert list(place.iterdir()) == [path] and path.read_bytes() == content


@pytest.mark.parametrize('make', [save(), safetensors_file])
@FUZZ
@given(start=st.floats(0, 1), end=st.floats(0, 1), more=st.binary(max_size=20))
@pytest.mark.slow
def test_truncated_cut_and_grown(make, sound, start, end, more):
    damaged(
        sound,
        make,
        lambda data: data[: int(start * len(data))] + more + data[int(max(start, end) * len(data)) :],
    )


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=5,
)


@FUZZ
@given(place=st.sampled_from(['state_dict', 'model', 'state_dict_ema', 'meta', 'weight']), value=ODD)
@pytest.mark.slow
def test_odd_values(sound, place, value):
    checkpoint = copy.deepcopy(sound)
    if place == 'weight':
        checkpoint['state_dict'][NAME] = value
    else:
        checkpoint[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'a.pth'
        torch.save(checkpoint, path)
        model = build(CFG)
        for way in (load_strict, lambda model, path: read_source(path)):
            try:
                way(model, str(path))
            except REFUSED as error:
                assert str(error)


INFO = ['best_ckpt', 'last_ckpt', 'keep_ckpt_ids', 'best_score', 'epoch', 'iter', 'max_iters']
PARTS = ['meta', 'message_hub', 'optimizer', 'ema_state_dict', 'param_schedulers', 'gradients']


@settings(FUZZ, max_examples=40)
@given(
    info=st.dictionaries(st.sampled_from(INFO), ODD),
    meta=st.dictionaries(st.sampled_from(['epoch', 'iter', 'seed', 'cfg', 'config', 'dataset_meta']), ODD),
    parts=st.dictionaries(st.sampled_from(PARTS), ODD, max_size=1),
)
@pytest.mark.slow
def test_an_odd_state_is_resumed_or_refused(sound, info, meta, parts):
    """`--resume` removes nothing, runs nothing and says what is wrong, whatever stands in the file."""
    checkpoint = copy.deepcopy(sound)
    checkpoint['message_hub']['runtime_info'].update(info)
    checkpoint['meta'].update(meta)
    checkpoint.update(parts)
    with tempfile.TemporaryDirectory() as folder:
        place, work = Path(folder) / 'place', Path(folder) / Path(folder).name  # mmengine's names
        place.mkdir(), work.mkdir()
        torch.save(checkpoint, place / 'a.pth')
        runner = make_runner(CFG, work, (1.0, 2.0), load_from=str(place / 'a.pth'), resume=True, **RESUME)
        try:
            runner.train()
        except REFUSED:
            pass
        assert [path.name for path in place.iterdir()] == ['a.pth']
