"""Random damage to a small checkpoint: whatever is read is what its owner saved."""

import copy
import pickle
import tempfile
from pathlib import Path

import pytest
import torch
from conftest import build, distilled, make_runner
from hostile import NAME, safetensors_file, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.runner import CheckpointLoader

from deit_plugin.apis.convert import read_source
from deit_plugin.checkpoints.strict import load_strict

REFUSED = (ValueError, OSError, pickle.UnpicklingError)
FUZZ = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CFG = distilled(teacher=None, mode='none')


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp('sound')
    torch.manual_seed(0)
    make_runner(CFG, folder, scores=(1.0,)).train()
    checkpoint = torch.load(folder / 'epoch_1.pth')
    del checkpoint['optimizer']
    return checkpoint


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


@settings(FUZZ, max_examples=30)
@given(info=st.dictionaries(st.sampled_from(['best_ckpt', 'last_ckpt', 'keep_ckpt_ids', 'best_score']), ODD))
@pytest.mark.slow
def test_odd_logs_are_resumed_or_refused(sound, info):
    """`--resume` removes nothing and runs nothing, whatever the logs say."""
    checkpoint = copy.deepcopy(sound)
    checkpoint['message_hub']['runtime_info'].update(info)
    with tempfile.TemporaryDirectory() as folder:
        place, work = Path(folder) / 'place', Path(folder) / Path(folder).name  # mmengine's names
        place.mkdir(), work.mkdir()
        torch.save(checkpoint, place / 'a.pth')
        runner = make_runner(CFG, work, (1.0, 2.0), load_from=str(place / 'a.pth'), resume=True)
        try:
            runner.train()
        except REFUSED:
            pass
        assert [path.name for path in place.iterdir()] == ['a.pth']
