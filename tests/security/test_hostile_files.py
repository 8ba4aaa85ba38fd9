"""No file runs code, touches another one, or is believed though it is damaged."""

import copy
import hashlib
import os
import pickle
import re
import uuid

import pytest
import torch
from conftest import ROOT, build, distilled, make_runner
from hostile import HOSTILE, SOUND

from deit_plugin.apis.convert import convert
from deit_plugin.checkpoints.reading import DIGEST

REFUSED = (ValueError, OSError, pickle.UnpicklingError)
HOOKS = [dict(type='FilledModelHook')]
SCHEDULE = dict(param_scheduler=[dict(type='DeiTLR', warmup_epochs=1)])


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
    """A config, and a checkpoint of a training with it."""
    folder = tmp_path_factory.mktemp('sound')
    cfg = distilled(teacher=None, mode='none')
    torch.manual_seed(0)
    make_runner(cfg, folder, scores=(1.0,), **SCHEDULE).train()
    checkpoint = torch.load(folder / 'epoch_1.pth')
    del checkpoint['meta'][DIGEST]  # of a file that others wrote
    return cfg, checkpoint


def load(cfg, path, folder):
    runner = make_runner(cfg, folder, load_from=str(path), custom_hooks=HOOKS)
    runner.call_hook('before_run')
    runner.load_or_resume()
    return runner.model.state_dict()


def resume(cfg, path, folder):
    runner = make_runner(
        cfg, folder, (1.0, 2.0), load_from=str(path), resume=True, custom_hooks=HOOKS, **SCHEDULE
    )
    loaded = {}
    original = runner.call_hook

    def call_hook(name, **kwargs):
        if name == 'before_train':
            loaded.update(copy.deepcopy(runner.model.state_dict()))
        original(name, **kwargs)

    runner.call_hook = call_hook
    runner.train()
    return loaded


def test(cfg, path, folder):
    runner = make_runner(
        cfg,
        folder,
        load_from=str(path),
        custom_hooks=HOOKS,
        test_dataloader=dict(
            dataset=dict(type='Noise'), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        test_cfg=dict(),
        test_evaluator=dict(type='Scripted', values=[1.0]),
    )
    runner.test()
    return runner.model.state_dict()


def teach(cfg, path, folder):
    student = copy.deepcopy(cfg)
    student['head']['loss']['mode'] = 'hard'
    student['teacher'] = dict(
        type='DistilledClassifier',
        backbone=cfg['backbone'],
        neck=cfg['neck'],
        head=cfg['head'],
        checkpoint=str(path),
    )
    model = build(student)
    model.teacher.build()
    return model.teacher.model.state_dict()


def converted(cfg, path, folder):
    convert(str(path), str(folder / 'out.pth'), 'mmpretrain')
    return torch.load(folder / 'out.pth')['state_dict']


WAYS = {'load_from': load, '--resume': resume, 'mim test': test, 'teacher': teach, 'convert': converted}
test.__test__ = False


def snapshot(folder):
    """All that lies beside, and what it holds."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


def outcome(way, make, sound, tmp_path, monkeypatch):
    """One cell of the table, after all that must not happen was looked for."""
    cfg, checkpoint = sound
    # mmengine keeps loggers by a name that is made of the folder's.
    place, work = tmp_path / 'place', tmp_path / f'work_{uuid.uuid4().hex}'
    for folder in (place, work, tmp_path / 'precious'):
        folder.mkdir()
    (tmp_path / 'precious' / 'best_a.pth').write_bytes(b'precious')
    monkeypatch.chdir(tmp_path)
    path = make(copy.deepcopy(checkpoint), place)
    before = snapshot(tmp_path)
    try:
        loaded = WAYS[way](cfg, path, work)
        cell = 'read'
    except REFUSED as error:
        loaded, cell = None, 'refused'
        text = str(error)
        assert text and 'Traceback' not in text
    after = {name: value for name, value in snapshot(tmp_path).items() if not name.startswith(str(work))}
    assert after == before  # nothing was written, changed or removed elsewhere
    assert not os.path.exists('was_run')
    if loaded is not None:
        for name, value in loaded.items():
            assert torch.equal(value, checkpoint['state_dict'][name]), name
    return cell


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('kind', SOUND)
def test_a_sound_file_is_read(kind, way, sound, tmp_path, monkeypatch):
    if kind == 'safetensors' and way == '--resume':
        pytest.skip('it holds no state of a training')
    assert outcome(way, SOUND[kind], sound, tmp_path, monkeypatch) == 'read'


def table():
    text = (ROOT / 'SECURITY.md').read_text()
    rows = re.findall(r'^\| ((?!file )[a-z].*?) \|$', text, re.M)
    return {cells[0]: dict(zip(WAYS, cells[1:])) for cells in (row.split(' | ') for row in rows)}


@pytest.mark.slow
@pytest.mark.parametrize('kind', HOSTILE)
def test_the_table_of_security_md(kind, sound, tmp_path, monkeypatch):
    found = {}
    for i, way in enumerate(WAYS):
        folder = tmp_path / str(i)
        folder.mkdir()
        found[way] = outcome(way, HOSTILE[kind], sound, folder, monkeypatch)
    line = f'| {kind.replace("_", " ")} | {" | ".join(found.values())} |'
    assert table().get(kind.replace('_', ' ')) == found, line


def test_the_table_is_whole():
    assert table().keys() == {kind.replace('_', ' ') for kind in HOSTILE}
