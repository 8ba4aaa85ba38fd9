"""What a teacher said once is what is read, or nothing is."""

import copy
import errno
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from deit_plugin.teacher_cache import disk
from deit_plugin.teacher_cache import store as labels
from deit_plugin.teacher_cache.header import Header
from deit_plugin.teacher_cache.store import LabelStore

FINGERPRINT = dict(
    data=dict(listing='a' * 64, size=12),
    pipeline=[dict(type='Crop', scale=(0.08, 1.0)), dict(type='Flip')],
    seed=0,
)
SIZE = dict(iterations=6, batch_size=4, num_classes=1000)
BLOCK = 4 + 4 * 2  # bytes of a checksum and of four labels


def make_store(path, mode='auto', fingerprint=FINGERPRINT, **kwargs):
    return LabelStore(path, mode, fingerprint, **{**SIZE, **kwargs})


def answer(iteration, rank=0, batch_size=4, num_classes=1000):
    """What the teacher says to a batch."""
    random = np.random.RandomState(iteration + 7919 * rank)
    return random.randint(0, num_classes, batch_size)


def record(path, iterations=range(6), **kwargs):
    store = make_store(path, **kwargs)
    for i in iterations:
        store.write(i, answer(i, store.rank))
    store.close()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_child(function):
    """Run it in a process of its own; its exit status, or minus a signal."""
    pid = os.fork()
    if not pid:
        try:
            function()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(autouse=True)
def no_patience(monkeypatch):
    monkeypatch.setattr(disk, 'PATIENCE', 0)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'run' / 'labels'


@pytest.mark.parametrize(
    'num_classes, dtype, width',
    [
        (1000, 'uint16', 2),
        (65535, 'uint16', 2),
        (65536, 'uint32', 4),
        (2**32, 'uint32', 4),
    ],
)
def test_round_trip(folder, num_classes, dtype, width):
    blocks = [answer(i, num_classes=num_classes) for i in range(6)]
    blocks[0][:2] = 0, num_classes - 1
    store = make_store(folder, 'record', num_classes=num_classes)
    for i, block in enumerate(blocks):
        store.write(i, block)
    store.close()
    for mode in 'replay', 'auto', 'record':
        store = make_store(folder, mode, num_classes=num_classes)
        assert store.recorded() == 6
        for i in 3, 0, 5, 1, 2, 4:
            read = store.read(i)
            assert read.dtype == np.int64
            np.testing.assert_array_equal(read, blocks[i])
        store.close()
    size = 6 * (4 + 4 * width)
    assert (folder / 'rank0.labels').stat().st_size == size
    assert json.loads((folder / 'header.json').read_text())['dtype'] == dtype


def test_topk_round_trip(folder):
    random = np.random.RandomState(0)
    indices = random.randint(0, 1000, (6, 4, 3))
    probs = random.uniform(0, 1, (6, 4, 3))
    store = make_store(folder, topk=3)
    for i in range(6):
        store.write(i, indices[i], probs[i])
    store.close()
    store = make_store(folder, 'replay', topk=3)
    for i in range(6):
        read_indices, read_probs = store.read(i)
        np.testing.assert_array_equal(read_indices, indices[i])
        assert read_probs.dtype == np.float32
        np.testing.assert_array_equal(read_probs, probs[i].astype(np.float16))
    size = 6 * (4 + 4 * 3 * (2 + 2))
    assert (folder / 'rank0.labels').stat().st_size == size


@st.composite
def runs(draw):
    """The arguments of a store, and what is written into it, some of it twice."""
    num_classes = draw(st.sampled_from([1, 2, 1000, 65535, 65536, 2**32]))
    size = dict(
        iterations=draw(st.integers(1, 8)),
        batch_size=draw(st.integers(1, 5)),
        num_classes=num_classes,
        topk=draw(st.integers(0, min(3, num_classes))),
    )
    shape = (size['batch_size'], size['topk']) if size['topk'] else (size['batch_size'],)
    indices = arrays.arrays(
        draw(st.sampled_from([np.int64, np.uint64, '>i8'])),
        shape,
        elements=st.integers(0, num_classes - 1),
    )
    probs = arrays.arrays(np.float64, shape, elements=st.floats(0, 1)) if size['topk'] else st.none()
    places = st.integers(0, size['iterations'] - 1)
    return size, draw(st.lists(st.tuples(places, indices, probs), max_size=12))


@settings(max_examples=50, deadline=None)
@given(run=runs(), cut=st.integers(0, 12), longer=st.integers(0, 3))
@example(run=(dict(iterations=1, batch_size=1, num_classes=1, topk=0), []), cut=0, longer=0)
def test_whatever_is_written_is_read(run, cut, longer):
    """By a store that was closed in between and by one of a longer run; all else is holes."""
    size, blocks = run
    with tempfile.TemporaryDirectory() as folder:
        for part in (blocks[:cut], blocks[cut:]):
            store = make_store(folder, **size)
            for block in part:
                store.write(*block)
            store.close()
        size['iterations'] += longer
        make_store(folder, **size).close()  # it grows
        expected = {place: rest for place, *rest in blocks}
        for mode in ('replay', 'auto', 'record'):
            store = make_store(folder, mode, **size)
            assert store.recorded() == len(expected)
            for i in range(size['iterations']):
                if i in expected:
                    indices, probs = expected[i]
                    got = store.read(i) if size['topk'] else (store.read(i),)
                    assert got[0].dtype == np.int64
                    np.testing.assert_array_equal(got[0], indices)
                    if size['topk']:
                        np.testing.assert_array_equal(got[1], probs.astype(np.float16))
                elif mode == 'replay':
                    with pytest.raises(LookupError):
                        store.read(i)
                else:
                    assert store.read(i) is None
            store.close()


def test_the_size_is_told_before_recording(folder, monkeypatch):
    lines = []

    def log(text, logger):
        assert not folder.exists() or not (folder / 'header.json').exists()
        lines.append((text, logger))

    monkeypatch.setattr(labels, 'print_log', log)
    store = make_store(folder, iterations=2000, batch_size=512, world_size=2)
    assert store.summary == (f'2,000 iterations of 2 x 512 images, 2,048,000 labels, 4.1 MB in {folder}')
    ((text, logger),) = lines
    assert store.summary in text and logger == 'current'


def test_what_is_read_is_a_copy(folder):
    store = make_store(folder)
    store.write(0, answer(0))
    store.read(0)[:] = 0
    np.testing.assert_array_equal(store.read(0), answer(0))


@pytest.mark.parametrize(
    'indices, probs',
    [
        ([0, 1, 2], None),
        ([[0, 1, 2, 3]], None),
        ([0, 1, 2, 1000], None),
        ([0, 1, 2, -1], None),
        ([0.0, 1.0, 2.0, 3.0], None),
        ([0, 1, 2, 3], [0.5] * 4),
    ],
)
def test_wrong_labels_are_not_recorded(folder, indices, probs):
    store = make_store(folder)
    with pytest.raises(ValueError):
        store.write(0, np.array(indices), probs)
    assert store.read(0) is None and store.recorded() == 0


@pytest.mark.parametrize('probs', [None, np.full((4, 3), 0.5), np.full((4, 2), 1.5), np.full((4, 2), np.nan)])
def test_wrong_probabilities_are_not_recorded(folder, probs):
    store = make_store(folder, topk=2)
    with pytest.raises(ValueError, match='probs'):
        store.write(0, np.zeros((4, 2), int), probs)
    assert store.read(0) is None


@pytest.mark.parametrize(
    'wrong',
    [
        dict(mode='write'),
        dict(iterations=0),
        dict(batch_size=0),
        dict(num_classes=0),
        dict(world_size=0),
        dict(rank=1),
        dict(rank=-1),
        dict(topk=-1),
        dict(topk=1001),
    ],
)
def test_arguments_out_of_range(folder, wrong):
    with pytest.raises(ValueError, match='Out of range'):
        make_store(folder, **wrong)
    assert not folder.exists()


def test_iterations_out_of_range(folder):
    store = make_store(folder)
    for iteration in -1, 6:
        with pytest.raises(IndexError, match=f'{iteration} is not within 0'):
            store.read(iteration)
        with pytest.raises(IndexError, match=f'{iteration} is not within 0'):
            store.write(iteration, answer(0))


def test_a_closed_store(folder):
    store = make_store(folder)
    store.close()
    store.close()
    for use in (lambda: store.read(0), lambda: store.write(0, answer(0)), store.recorded):
        with pytest.raises(ValueError, match='closed'):
            use()


def test_no_copies(folder):
    store = make_store(folder)
    with pytest.raises(TypeError, match='neither copied'):
        copy.deepcopy(store)


def test_a_hole_is_none_or_an_error_in_replay(folder):
    record(folder, [0, 1, 4])
    store = make_store(folder)
    assert [store.read(i) is None for i in range(6)] == [False, False, True, True, False, True]
    assert store.recorded() == 3
    store.close()
    store = make_store(folder, 'replay')
    with pytest.raises(LookupError, match='iteration 2: 3 of 6') as error:
        store.read(2)
    assert not isinstance(error.value, IndexError)


def test_auto_fills_the_holes(folder):
    record(folder, [0, 1, 4])
    asked = []
    for _ in range(2):
        store = make_store(folder)
        for i in range(6):
            if store.read(i) is None:
                asked.append(i)
                store.write(i, answer(i))
        store.close()
    assert asked == [2, 3, 5]
    store = make_store(folder, 'replay')
    for i in range(6):
        np.testing.assert_array_equal(store.read(i), answer(i))


def test_labels_that_sum_to_nothing_are_no_hole(folder, monkeypatch):
    monkeypatch.setattr(zlib, 'crc32', lambda content, start=0: 0)
    store = make_store(folder)
    store.write(0, np.zeros(4, int))
    assert store.recorded() == 1
    np.testing.assert_array_equal(store.read(0), np.zeros(4))


def test_killed_while_recording(folder):
    """The parent kills at some moment, most likely inside a write."""
    size = dict(iterations=20000, batch_size=64)
    for round_ in range(4):
        pid = os.fork()
        if not pid:
            store = make_store(folder, 'record', **size)
            while True:
                for i in range(20000):
                    store.write(i, answer(i % 50, batch_size=64))
        file = folder / 'rank0.labels'
        deadline = time.monotonic() + 10
        while not (file.exists() and file.read_bytes()[:4].strip(b'\0')):
            assert time.monotonic() < deadline
        time.sleep(0.02 * (1 + round_))
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        store = make_store(folder, **size)
        found = [store.read(i) for i in range(20000)]
        assert 0 < store.recorded() == sum(x is not None for x in found)
        for i, block in enumerate(found):
            assert block is None or (block == answer(i % 50, batch_size=64)).all()
        store.close()


def test_a_torn_write_is_a_hole(folder):
    """Every state that a kill could leave is the old block, the new one or
    none."""
    record(folder, topk=0)
    file, states = folder / 'rank0.labels', []

    class Watched(np.ndarray):
        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            states.append(file.read_bytes())

    old, new = answer(2), answer(100)
    assert (old != new).any()
    store = make_store(folder, 'record')
    store._blocks = store._blocks.view(Watched)
    store.write(2, new)
    store._blocks = None
    store.close()
    assert len(states) == 3
    seen = []
    for state in states:
        file.write_bytes(state)
        store = make_store(folder)
        seen.append(store.read(2))
        store.close()
    assert seen[0] is None and seen[1] is None
    np.testing.assert_array_equal(seen[2], new)


def test_content_without_a_checksum_is_a_hole(folder):
    """Whole or in part, as a kill leaves it."""
    record(folder, [0, 1])
    content = answer(2).astype('<u2').tobytes()
    for part in content, content[:3]:
        with open(folder / 'rank0.labels', 'r+b') as file:
            file.seek(2 * BLOCK + 4)
            file.write(part)
        store = make_store(folder, 'record')
        assert store.read(2) is None and store.recorded() == 2
        store.close()
    record(folder, [2])
    np.testing.assert_array_equal(make_store(folder, 'replay').read(2), answer(2))


def test_a_killed_recording_goes_on(folder):

    def recorder():
        store = make_store(folder, 'record')
        for i in range(4):
            store.write(i, answer(i))
        os._exit(9)

    assert in_child(recorder) == 9
    before = contents(folder)
    store = make_store(folder, 'record')
    assert store.recorded() == 4
    store.write(3, answer(3))
    store.close()
    assert contents(folder) == before
    record(folder, [4, 5], mode='record')
    store = make_store(folder, 'replay')
    for i in range(6):
        np.testing.assert_array_equal(store.read(i), answer(i))


def test_killed_before_there_is_room(folder, monkeypatch):
    """First is the lock, then the header, then the file, then the room, then the header says so."""

    def killed(*args):
        os._exit(9)

    write = Header.write
    lock, header, file = 'rank0.labels.lock', 'header.json', 'rank0.labels'
    for owner, name, kill, files in [
        (Header, 'write', killed, {lock}),
        (LabelStore, '_allocate', killed, {lock, header}),
        (labels, 'reserve', killed, {lock, header, file}),
        (Header, 'write', lambda self, n: os._exit(9) if n else write(self, n), {lock, header, file}),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, kill)
            assert in_child(lambda: make_store(folder)) == 9
        assert set(contents(folder)) == files
        with pytest.raises((ValueError, FileNotFoundError), match='holds 0 iterations|Nothing to replay'):
            make_store(folder, 'replay')
    assert (folder / file).stat().st_size == 6 * BLOCK
    record(folder)
    assert make_store(folder, 'replay').recorded() == 6


def test_each_flipped_bit_is_found(folder):
    record(folder)
    file = folder / 'rank0.labels'
    sound = file.read_bytes()
    for bit in range(8 * BLOCK):
        damaged = bytearray(sound)
        damaged[3 * BLOCK + bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        store = make_store(folder, 'replay')
        with pytest.raises(ValueError, match='damaged at iteration 3.*record') as error:
            store.read(3)
        assert str(file) in str(error.value)
        np.testing.assert_array_equal(store.read(2), answer(2))
    record(folder, [3], mode='record')
    assert file.read_bytes() == sound


def test_blocks_in_the_wrong_place_are_found(folder):
    record(folder)
    file = folder / 'rank0.labels'
    sound = file.read_bytes()
    file.write_bytes(sound[BLOCK : 2 * BLOCK] + sound[:BLOCK] + sound[2 * BLOCK :])
    store = make_store(folder)
    for i in 0, 1:
        with pytest.raises(ValueError, match=f'damaged at iteration {i}'):
            store.read(i)
    store.close()


@pytest.mark.parametrize('mode', ['record', 'auto', 'replay'])
@pytest.mark.parametrize(
    'change, line',
    [
        (dict(batch_size=5), 'batch_size: 4 -> 5'),
        (dict(world_size=2), 'world_size: 1 -> 2'),
        (dict(num_classes=999), 'num_classes: 1000 -> 999'),
        (dict(num_classes=70000), 'dtype: "uint16" -> "uint32"'),
        (dict(topk=2), 'topk: 0 -> 2'),
        (dict(fingerprint={**FINGERPRINT, 'seed': 1}), 'fingerprint.seed: 0 -> 1'),
        (dict(fingerprint={**FINGERPRINT, 'mixup': 0.8}), 'fingerprint.mixup: absent -> 0.8'),
    ],
)
def test_labels_of_another_run_are_refused(folder, mode, change, line):
    record(folder)
    before = contents(folder)
    with pytest.raises(ValueError, match='another .model.teacher_l') as error:
        make_store(folder, mode, **change)
    assert line in str(error.value).splitlines()
    assert contents(folder) == before
    record(folder)  # nothing is left locked


def test_a_fingerprint_that_json_does_not_know(folder):
    with pytest.raises(TypeError):
        make_store(folder, fingerprint=dict(a=object()))
    assert not folder.exists()


@pytest.mark.parametrize('mode', ['record', 'auto'])
def test_a_longer_run_extends(folder, mode):
    record(folder)
    with pytest.raises(ValueError, match='holds 6 iterations, but 9 are'):
        make_store(folder, 'replay', iterations=9)
    store = make_store(folder, mode, iterations=9)
    for i in range(6):
        np.testing.assert_array_equal(store.read(i), answer(i))
    assert all(store.read(i) is None for i in (6, 7, 8))
    store.write(8, answer(8))
    store.close()
    assert (folder / 'rank0.labels').stat().st_size == 9 * (4 + 4 * 2)
    np.testing.assert_array_equal(make_store(folder, 'replay', iterations=9).read(8), answer(8))


def test_a_shorter_run_leaves_the_rest(folder):
    record(folder)
    before = contents(folder)
    for mode in 'replay', 'auto', 'record':
        store = make_store(folder, mode, iterations=4)
        assert store.recorded() == 4
        np.testing.assert_array_equal(store.read(3), answer(3))
        with pytest.raises(IndexError):
            store.read(4)
        store.close()
    assert contents(folder) == before


def test_replay_only_reads(folder):
    """No file is opened to write, so that the folder may be read-only."""
    record(folder)
    for path in [*folder.iterdir(), folder]:
        path.chmod(path.stat().st_mode & 0o555)
    opened = []

    def replay():
        watch = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        sys.addaudithook(lambda event, args: event == 'open' and args[2] & watch and opened.append(args[0]))
        store = make_store(folder, 'replay')
        for i in range(6):
            np.testing.assert_array_equal(store.read(i), answer(i))
        store.flush()
        store.close()
        assert not opened, opened

    try:
        assert in_child(replay) == 0
    finally:
        folder.chmod(0o755)


def test_replay_takes_no_labels(folder):
    record(folder, [0])
    before = contents(folder)
    store = make_store(folder, 'replay')
    for i in 0, 1:
        with pytest.raises(ValueError, match='replayed'):
            store.write(i, answer(5))
    store.close()
    assert contents(folder) == before


def test_nothing_to_replay(folder):
    with pytest.raises(FileNotFoundError, match='Nothing to replay.*header'):
        make_store(folder, 'replay')
    assert not folder.exists()
    record(folder)
    (folder / 'rank0.labels').unlink()
    with pytest.raises(FileNotFoundError, match='Nothing .*rank0.labels'):
        make_store(folder, 'replay')
    store = make_store(folder)  # only the labels are lost
    assert store.recorded() == 0
    store.close()


@pytest.mark.parametrize('size', [0, 2 * BLOCK, 5 * BLOCK + 7])
def test_a_short_file(folder, size):
    record(folder)
    os.truncate(folder / 'rank0.labels', size)
    for iterations in 1, 6:
        with pytest.raises(ValueError, match=f'rank0.labels is short: {size} of 72'):
            make_store(folder, 'replay', iterations=iterations)
    store = make_store(folder)
    for i in range(size // BLOCK):
        np.testing.assert_array_equal(store.read(i), answer(i))
    if size % BLOCK:
        with pytest.raises(ValueError, match='damaged at iteration 5'):
            store.read(5)
    else:
        assert store.read(size // BLOCK) is None
    store.close()


@pytest.mark.parametrize(
    'header',
    [
        b'',
        b'\0' * 200,
        b'\xff\xfe',
        b'{"format": 1, "fing',
        b'[]',
        b'7',
        b'{}',
        b'{"format": 1, "iterations": 6}',
        b'{"iterations": "6", "fingerprint": {}}',
    ],
)
@pytest.mark.parametrize('mode', ['record', 'auto', 'replay'])
def test_a_damaged_header(folder, header, mode):
    record(folder)
    (folder / 'header.json').write_bytes(header)
    before = contents(folder)
    with pytest.raises(ValueError, match='header.json is damaged.*delete'):
        make_store(folder, mode)
    assert contents(folder) == before


def test_a_header_of_another_version(folder):
    record(folder)
    header = json.loads((folder / 'header.json').read_text())
    (folder / 'header.json').write_text(json.dumps({**header, 'format': 2}))
    with pytest.raises(ValueError, match='format: 2 -> 1'):
        make_store(folder)


def test_labels_without_a_header(folder):
    record(folder)
    (folder / 'header.json').unlink()
    before = contents(folder)
    for mode in 'record', 'auto':
        with pytest.raises(ValueError, match='header.json is missing'):
            make_store(folder, mode)
    assert contents(folder) == before


def test_one_writer(folder):
    writer = make_store(folder)
    for mode in 'record', 'auto':
        with pytest.raises(BlockingIOError, match='Another run'):
            make_store(folder, mode, iterations=9)
    assert (folder / 'rank0.labels').stat().st_size == 6 * BLOCK
    writer.write(0, answer(0))
    reader = make_store(folder, 'replay')
    np.testing.assert_array_equal(reader.read(0), answer(0))
    writer.write(1, answer(1))
    np.testing.assert_array_equal(reader.read(1), answer(1))
    writer.close()
    record(folder, mode='record')


def test_a_closed_store_is_free_though_a_worker_lives(folder):
    """As the workers of a data loader, forked while the store is open."""
    store = make_store(folder)
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    try:
        with pytest.raises(BlockingIOError):
            make_store(folder)
        store.close()
        record(folder)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_workers_of_a_killed_recording_are_waited_for(folder, monkeypatch):
    """Older filelocks let them hold its lock until they notice that they are alone."""
    monkeypatch.setattr(disk, 'PATIENCE', 10)

    def recorder():
        store = make_store(folder, 'record')
        store.write(0, answer(0))
        if os.fork():
            os._exit(9)
        time.sleep(0.5)

    assert in_child(recorder) == 9
    store = make_store(folder)
    assert store.recorded() == 1
    store.close()


def free(monkeypatch, size):
    usage = shutil.disk_usage('/')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=size))


def test_a_disk_too_small(folder, monkeypatch):
    size = dict(iterations=1000, batch_size=498, world_size=4)  # 1 MB a rank
    free(monkeypatch, 3_999_999)
    with pytest.raises(OSError, match=r'needed are 4.0 MB, free are 4.0 MB') as error:
        make_store(folder, **size)
    assert error.value.errno == errno.ENOSPC
    assert '1,000 iterations of 4 x 498' in str(error.value)
    assert not folder.parent.exists()
    free(monkeypatch, 4_000_000)
    make_store(folder, **size).close()
    # What is there needs no more room.
    free(monkeypatch, 3_000_000)
    make_store(folder, **size).close()
    before = contents(folder)
    with pytest.raises(OSError, match='needed are 3.0 MB') as error:
        make_store(folder, **{**size, 'iterations': 1001})
    assert error.value.errno == errno.ENOSPC
    assert contents(folder) == before


def test_room_is_reserved(folder):
    store = make_store(folder, iterations=1000, batch_size=1000)
    stat = (folder / 'rank0.labels').stat()
    if not hasattr(os, 'posix_fallocate'):
        pytest.skip('nothing reserves room here')
    assert stat.st_blocks * 512 >= stat.st_size == 1000 * (4 + 1000 * 2)
    store.close()


def test_room_that_vanishes(folder, monkeypatch):
    record(folder)
    before = contents(folder)

    def full(descriptor, start, size):
        os.ftruncate(descriptor, size // 2)
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', full, raising=False)
    with pytest.raises(OSError, match='No room for the labels') as error:
        make_store(folder, iterations=100)
    assert error.value.errno == errno.ENOSPC
    assert contents(folder) == before
    record(folder)  # nothing is left locked
    assert make_store(folder, 'replay').recorded() == 6


@pytest.mark.parametrize('code', [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_reservation(folder, monkeypatch, code):
    if code is None:
        monkeypatch.delattr(os, 'posix_fallocate', raising=False)
    else:

        def refuse(*args):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, 'posix_fallocate', refuse, raising=False)
    record(folder, range(3))
    record(folder, range(3, 6))
    store = make_store(folder, 'replay')
    assert store.recorded() == 6
    assert (folder / 'rank0.labels').stat().st_size == 6 * BLOCK


def test_without_locks(folder, monkeypatch):
    """As filelock says it of a file system."""

    def acquire(self, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(disk.FileLock, 'acquire', acquire)
    store = make_store(folder)
    record(folder)  # nothing keeps it from it
    store.close()
    assert make_store(folder, 'replay').recorded() == 6


@pytest.mark.parametrize('code', [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
@pytest.mark.filterwarnings('ignore:flock not supported')
def test_a_file_system_without_locks(folder, monkeypatch, code):
    """As the kernel says it: NFS without a lock daemon has none available."""
    fcntl = pytest.importorskip('fcntl')

    def flock(*args):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, 'flock', flock)
    record(folder, range(3))
    record(folder, range(3, 6))
    assert make_store(folder, 'replay').recorded() == 6


def test_several_ranks(folder):
    """Each a process, rank 0 the last to come."""

    def rank_of(rank):
        if rank == 0:
            time.sleep(0.3)
        record(folder, rank=rank, world_size=3)

    pids = []
    for rank in range(3):
        pids.append(os.fork())
        if not pids[-1]:
            os._exit(in_child(lambda: rank_of(rank)))
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    assert set(contents(folder)) == {'header.json'} | {
        f'rank{rank}.labels{end}' for rank in range(3) for end in ('', '.lock')
    }
    for rank in range(3):
        store = make_store(folder, 'replay', rank=rank, world_size=3)
        assert store.recorded() == 6
        for i in range(6):
            np.testing.assert_array_equal(store.read(i), answer(i, rank))
    (folder / 'rank1.labels').write_bytes((folder / 'rank2.labels').read_bytes())
    with pytest.raises(ValueError, match='rank1.labels is damaged'):
        make_store(folder, 'replay', rank=1, world_size=3).read(0)


def test_several_ranks_extend_in_any_order(folder):
    for rank in 0, 1:
        record(folder, rank=rank, world_size=2)
    for rank in 1, 0:
        store = make_store(folder, rank=rank, world_size=2, iterations=9)
        assert store.recorded() == 6
        store.write(8, answer(8, rank))
        store.close()
    for rank in 0, 1:
        store = make_store(folder, 'replay', rank=rank, world_size=2, iterations=9)
        np.testing.assert_array_equal(store.read(8), answer(8, rank))


def test_a_lost_rank_is_made_as_long_as_the_others(folder):
    for rank in 0, 1:
        record(folder, rank=rank, world_size=2)
    (folder / 'rank1.labels').unlink()
    make_store(folder, rank=1, world_size=2, iterations=4).close()
    assert make_store(folder, 'replay', rank=1, world_size=2).recorded() == 0


def test_rank_0_that_does_not_come(folder, monkeypatch):
    monkeypatch.setattr(labels, 'HEADER_WAIT', 0.2)
    with pytest.raises(FileNotFoundError, match='Rank 0 has not made.*header'):
        make_store(folder, rank=1, world_size=2)


def test_flushed_at_intervals(folder, monkeypatch):
    flushed = []
    monkeypatch.setattr(labels, 'FLUSH_INTERVAL', 2)
    monkeypatch.setattr(np.memmap, 'flush', lambda self: flushed.append(1))
    store = make_store(folder)
    for i in range(5):
        store.write(i, answer(i))
    assert len(flushed) == 2
    store.close()
    assert len(flushed) == 3
