"""docs/ecosystem.md: DeiT below mmseg's and mmdet's heads, and what mmrazor says."""

import importlib.util
import os
import subprocess
import sys

import mmcv
import pytest
import torch
from conftest import ARCH, ROOT, build, distilled, shuffle_weights, to_timm
from examples import examples

COMPILED = importlib.util.find_spec('mmcv._ext') is not None
MMCV = f'with {"mmcv" if COMPILED else "mmcv-lite"} {mmcv.__version__}'
# At a width and a resolution for a test.
SMALL = {
    "'small'": repr(dict(ARCH, num_layers=12)),
    'img_size=512': 'img_size=64',
    'drop_path_rate=0.1': 'drop_path_rate=0.0',  # or a layer has no gradient now and then
    '384': '32',
}
TESTS = dict(
    mmseg='model.update(data_preprocessor=dict(size=(64, 64), test_cfg=dict(size_divisor=16)))\n'
    "model['decode_head'].update(channels=16)\n",
    mmdet='model.update(test_cfg=dict(score_thr=0.0))\n',
)


def start(folder, *command):
    env = dict(os.environ, PYTHONPATH='.')
    return subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)


@pytest.fixture
def checkpoints(tmp_path):
    """A distilled classifier for images of another size, under our names and those of published files."""
    backbone = dict(type='DeiT', arch=dict(ARCH, num_layers=12), distilled=True, img_size=32)
    state = shuffle_weights(build(distilled(backbone=backbone, teacher=None))).state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
    torch.save(dict(model=to_timm(state)), tmp_path / 'published.pth')
    return 'ours.pth', 'published.pth'


@pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=pytest.mark.tool(name, MMCV)) for name in ('mmseg', 'mmdet')],
)
def test_a_dense_model_loads_learns_and_predicts(name, tmp_path, checkpoints):
    pytest.importorskip(name)
    text = examples(name)[0]
    for old, new in SMALL.items():
        assert old in text, f'{old} is no longer in the example of {name}'
        text = text.replace(old, new)
    if not COMPILED:
        text = text.replace("imports=['", "imports=['mmcv_without_ops', '")
        (tmp_path / 'mmcv_without_ops.py').write_text(examples('mmseg')[1])
    (tmp_path / 'config.py').write_text(text + TESTS[name])
    script = str(ROOT / 'tests' / 'ecosystem' / 'dense.py')
    done = start(tmp_path, script, 'config.py', 'ours.pth', *checkpoints)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.tool('mmrazor')
@pytest.mark.xfail(
    strict=True,
    raises=ImportError,
    reason='its models import functions of torch.ao.quantization that torch no longer has',
)
def test_the_models_of_mmrazor_can_be_imported(tmp_path):
    if importlib.util.find_spec('mmrazor') is None:
        pytest.skip('mmrazor is not installed')
    done = start(tmp_path, '-c', examples('mmrazor')[0])
    if '`torch>=1.13` is not installed properly' in done.stderr:  # so it calls a torch without them
        raise ImportError(done.stderr[-2000:])
    assert done.returncode == 0, done.stderr[-2000:]
