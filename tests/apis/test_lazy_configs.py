"""Configs in Python style (``with read_base()``), whose types are classes and which set no scope."""

import sys

import pytest
import torch
from conftest import CONFIGS
from mmengine.config import Config
from mmengine.runner import Runner

from deit_plugin.__main__ import main
from deit_plugin.apis.evaluate import evaluate
from deit_plugin.apis.predict import predict
from deit_plugin.datasets.digits import write_digits

BASE = f"""
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.datasets.transforms import PackInputs
from mmpretrain.evaluation import Accuracy
from mmcv.transforms import Resize
from mmpretrain.models import TimmClassifier
from torch.optim import AdamW
from deit_plugin.datasets import Digits, LoadRandomResizedCrop
from deit_plugin.engine import SeedHook, TeacherLabelsHook
from deit_plugin.models import (DeiT, DeiTDataPreprocessor, DeiTDualHead, DistillationTokenNeck,
                                DistilledClassifier)

levels = dict(mean=[77.9] * 3, std=[95.9] * 3)
model = dict(
    type=DistilledClassifier,
    backbone=dict(
        type=DeiT, img_size=16, patch_size=4, distilled=True,
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)),
    neck=dict(type=DistillationTokenNeck),
    head=dict(type=DeiTDualHead, num_classes=10, in_channels=16),
    teacher=dict(
        type=TimmClassifier, model_name='regnety_002', num_classes=10, depth=6, w0=16, wa=16., wm=2.,
        group_size=8, stem_width=16, output_stride=8, data_preprocessor=levels,
        checkpoint={str(CONFIGS / 'deit_digits_teacher.pth')!r}),
    teacher_labels=dict(path='labels'),
    data_preprocessor=dict(type=DeiTDataPreprocessor, num_classes=10, **levels))
train_dataloader = dict(
    batch_size=256, num_workers=0, collate_fn=dict(type=default_collate),
    dataset=dict(type=Digits, split='train', pipeline=[
        dict(type=LoadRandomResizedCrop, scale=16), dict(type=PackInputs)]),
    sampler=dict(type=DefaultSampler, shuffle=True))
test_dataloader = dict(
    batch_size=64, num_workers=0, collate_fn=dict(type=default_collate),
    dataset=dict(type=Digits, split='test', pipeline=[
        dict(type=Resize, scale=(16, 16)), dict(type=PackInputs)]),
    sampler=dict(type=DefaultSampler, shuffle=False))
test_cfg, test_evaluator = dict(), dict(type=Accuracy)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3))
default_hooks = dict(seed=dict(type=SeedHook), teacher_labels=dict(type=TeacherLabelsHook))
randomness = dict(seed=0)
"""
LAZY = """
from mmengine.config import read_base
with read_base():
    from .parent import *
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Labels recorded by the command, and a training that replays them; the folder of all."""
    folder = tmp_path_factory.mktemp('lazy')
    (folder / 'parent.py').write_text(BASE)
    (folder / 'student.py').write_text(LAZY)
    write_digits(folder / 'digits')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(['label', 'student.py', '--work-dir', 'recording']) == 0
        cfg = Config.fromfile('student.py')
        cfg.work_dir = 'work'
        # As mmpretrain's tools do where a config has none.
        cfg.default_scope = 'mmpretrain'
        cfg.model.teacher_labels.mode = 'replay'
        Runner.from_cfg(cfg).train()
    return folder


def test_a_student_trains_from_labels_that_the_command_recorded(trained):
    """All answers must be there."""
    weights = torch.load(trained / 'work' / 'epoch_1.pth')['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


def test_evaluation_reads_the_config_or_what_the_checkpoint_records(trained):
    work, data = str(trained / 'work'), str(trained / 'digits')
    (recorded,) = evaluate([], data, work, workers=0)
    (named,) = evaluate([str(trained / 'student.py')], data, work, workers=0)
    assert 'error' not in recorded, recorded
    assert recorded['images'] == 360
    assert recorded['measured'] == named['measured'], (recorded, named)


def test_prediction_reads_the_config_or_what_the_checkpoint_records(trained):
    work, images = str(trained / 'work'), [str(trained / 'digits' / 'val' / '3')]
    recorded = predict(work, images)
    assert recorded == predict(work, images, config=str(trained / 'student.py'))
    assert len(recorded) > 20


def test_a_path_of_a_class_is_never_imported(trained, tmp_path, capsys, monkeypatch):
    checkpoint = torch.load(trained / 'work' / 'epoch_1.pth')
    text = checkpoint['meta']['cfg']
    assert 'deit_plugin.models.DeiTDualHead' in text
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'deit_plugin_evil.py').write_text('')
    for path in ('deit_plugin_evil.DeiTDualHead', 'deit_plugin.models.nowhere.Nothing', 'os.system'):
        checkpoint['meta']['cfg'] = text.replace('deit_plugin.models.DeiTDualHead', path)
        torch.save(checkpoint, tmp_path / 'changed.pth')
        assert main(['predict', str(tmp_path / 'changed.pth'), str(trained / 'digits' / 'val' / '3')]) == 2
        assert 'none of them is imported' in capsys.readouterr().err
    assert 'deit_plugin_evil' not in sys.modules


@pytest.mark.parametrize('command', [['predict', 'x.pth', 'y.png', '--config'], ['evaluate', '--data', 'z']])
def test_a_config_that_only_its_images_complete_is_told(trained, command, capsys, monkeypatch):
    monkeypatch.chdir(trained)
    path = str(CONFIGS / 'finetune' / 'digits_distilled_folder.py')
    given = dict(zip(('x.pth', 'y.png', 'z'), ('work/epoch_1.pth', 'digits/val/3', 'digits')))
    arguments = [given.get(a, a) for a in command] + [path]
    assert main(arguments) in (1, 2)
    said = capsys.readouterr()
    assert 'is completed from the images that it trains on: name the config in the' in said.err


def test_a_config_without_a_model_is_told(tmp_path, capsys):
    (tmp_path / 'empty.py').write_text('a = 1')
    assert main(['label', str(tmp_path / 'empty.py')]) == 2
    assert 'is no config of a training: it has no `model`' in capsys.readouterr().err
