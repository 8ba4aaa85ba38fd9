"""What a user gets by importing the package, from anywhere."""

import os.path as osp
import re
import subprocess
import sys
import textwrap
from importlib.metadata import requires

import pytest
import torch
from conftest import ARCH
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.registry import Registry
from mmpretrain.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    TRANSFORMS,
)

ROOT_FOLDER = osp.dirname(osp.dirname(osp.abspath(__file__)))


def run(code, folder):
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], cwd=folder, capture_output=True, text=True
    )


def test_all_parts_are_registered():
    for name in (
        'DeiT',
        'DistillationTokenNeck',
        'DeiTDualHead',
        'DistillationLoss',
        'DistilledClassifier',
        'MaskedDeiT',
        'DeiTDataPreprocessor',
    ):
        assert MODELS.get(name).__module__.startswith('deit_plugin')
    for name in (
        'AtomicCheckpointHook',
        'FiniteLossHook',
        'SeedHook',
        'TeacherLabelsHook',
        'CompileHook',
    ):
        assert HOOKS.get(name).__module__.startswith('deit_plugin')
    for registry, name in (
        (DATASETS, 'Digits'),
        (TRANSFORMS, 'LoadRandomResizedCrop'),
        (LOOPS, 'TeacherLabelLoop'),
        (OPTIM_WRAPPER_CONSTRUCTORS, 'GroupedOptimWrapperConstructor'),
    ):
        assert registry.get(name).__module__.startswith('deit_plugin')


@pytest.mark.slow
def test_custom_imports_in_a_config_of_mmpretrain(tmp_path):
    """One line added to a config that a user already has."""
    (tmp_path / 'mine.py').write_text(
        textwrap.dedent("""
        _base_ = ['mmpretrain::deit/deit-tiny_4xb256_in1k.py']
        custom_imports = dict(
            imports=['deit_plugin'], allow_failed_imports=False)
        model = dict(backbone=dict(_delete_=True, type='DeiT', arch='tiny'))
    """)
    )
    result = run(
        """
        from mmengine.config import Config
        from mmpretrain import get_model
        model = get_model(Config.fromfile('mine.py'))
        print(type(model.backbone).__module__)
        """,
        tmp_path,
    )
    assert result.stdout.strip().endswith('deit_plugin.models.backbone'), result.stderr


@pytest.mark.parametrize(
    'base',
    [
        'deit/deit-tiny_4xb256_in1k',
        'deit/deit-base-distilled_16xb64_in1k',
        'resnet/resnet50_8xb32_in1k',
        'vision_transformer/vit-base-p16_32xb128-mae_in1k',
    ],
)
def test_snippet_of_the_readme(tmp_path, base):
    with open(osp.join(ROOT_FOLDER, 'README.md')) as file:
        (snippet,) = re.findall(r'```python\n(custom_imports.*?)```', file.read(), re.S)
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = ['mmpretrain::{base}.py']\n{snippet}")
    cfg = Config.fromfile(path)
    model = MODELS.build(cfg.model)
    assert type(model).__name__ == 'DistilledClassifier'
    assert model.backbone.distilled and model.data_preprocessor.batch_augments
    for name in ('checkpoint', 'finite_loss'):
        HOOKS.build(cfg.default_hooks[name])


def test_demo_teacher_is_small():
    path = osp.join(ROOT_FOLDER, 'configs', 'deit_digits_teacher.pth')
    assert osp.getsize(path) < 500e3


def test_from_another_scope():
    other = Registry('model', parent=ROOT, scope='mmother')
    backbone = other.build(dict(type='mmpretrain.DeiT', arch=ARCH, out_type='featmap'))
    (featmap,) = backbone(torch.randn(1, 3, 64, 32))
    assert featmap.shape == (1, 32, 4, 2)


def test_missing_mmcv_is_explained(tmp_path):
    result = run(
        """
        import sys
        sys.modules['mmcv'] = None
        import deit_plugin
        """,
        tmp_path,
    )
    assert '`pip install mmcv-lite`' in result.stderr


def test_installing_never_replaces_mmcv():
    """mmcv and mmcv-lite share a folder: only an extra may bring one."""
    plain = [r for r in requires('deit_plugin') if 'extra' not in r]
    assert plain and not any('mmcv' in r for r in plain)
    standalone = [r for r in requires('deit_plugin') if 'standalone' in r]
    for name in ('mmcv-lite', 'openmim', 'setuptools<82', 'torchvision', 'scikit-learn'):
        assert any(r.startswith(name) for r in standalone), name


def test_digits():
    train = DATASETS.build(dict(type='Digits', split='train'))
    test = DATASETS.build(dict(type='Digits', split='test'))
    assert (len(train), len(test)) == (1437, 360)
    images = {
        (i['img'].tobytes(), i['gt_label'])
        for split in (train, test)
        for i in (split.get_data_info(k) for k in range(len(split)))
    }
    from sklearn.datasets import load_digits

    digits = load_digits()
    assert len({i.tobytes() for i in digits.images}) == len(images)  # all
    for i in (0, 1000):
        image = (digits.images[i] * 255 / 16).round().astype('uint8')
        image = image[:, :, None].repeat(3, axis=2)
        assert (image.tobytes(), digits.target[i]) in images
    with pytest.raises(ValueError, match="split='val' is unknown"):
        DATASETS.build(dict(type='Digits', split='val'))


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
    with pytest.raises(ModuleNotFoundError, match='pip install scikit-learn'):
        DATASETS.build(dict(type='Digits', split='test'))


def test_demo_student_is_the_same_with_and_without_a_teacher():
    folder = 'configs/deit_digits'
    plain = Config.fromfile(f'{folder}.py').model.backbone
    distilled = Config.fromfile(f'{folder}_distilled.py').model.backbone
    assert distilled.pop('distilled') is True and plain == distilled
