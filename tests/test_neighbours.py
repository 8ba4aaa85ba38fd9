"""What belongs to others behaves the same with this package and without it."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from conftest import ROOT

# Each prints what a neighbour sees. It is run with `import deit_plugin` and without.
NEIGHBOURS = dict(
    checkpoints="""
        import torch
        from mmengine.runner import CheckpointLoader, load_checkpoint
        import mmpretrain.models
        contents = dict(
            a=dict(model=dict(w=torch.ones(1)), epoch=3), b=[1, 'x'], c=torch.ones(2),
            d=dict(state_dict=dict(w=torch.ones(1)), meta=dict(CLASSES=['a'])),
            e=dict(model_ema={}, args=None))
        for name, content in contents.items():
            torch.save(content, name + '.pth')
            seen[name] = str(CheckpointLoader.load_checkpoint(name + '.pth', 'cpu'))
        linear = torch.nn.Linear(2, 2)
        for name in 'ad':
            seen['into ' + name] = str(load_checkpoint(linear, name + '.pth').keys())
        """,
    modules="""
        import torch
        from torch.nn.modules import module
        from mmpretrain.registry import MODELS
        import mmpretrain.models
        vit = MODELS.build(dict(
            type='ImageClassifier',
            backbone=dict(type='VisionTransformer', arch=dict(
                embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8), img_size=32),
            head=dict(type='VisionTransformerClsHead', num_classes=2, in_channels=8)))
        seen['global hooks'] = {n: len(v) for n, v in vars(module).items()
                                if n.startswith('_global_') and hasattr(v, '__len__')}
        seen['hooks'] = {n: len(m._load_state_dict_pre_hooks) for n, m in vit.named_modules()
                         if m._load_state_dict_pre_hooks}
        seen['partial'] = str(vit.load_state_dict({'head.layers.head.bias': torch.ones(2)}, strict=False))
        try:
            vit.load_state_dict({'blocks.0.norm1.weight': torch.ones(8)})
        except RuntimeError as error:
            seen['foreign'] = str(error)
        seen['class'] = str(MODELS.get('DistilledVisionTransformer'))
        """,
    data="""
        import torch
        class Data(torch.utils.data.Dataset):
            def __len__(self):
                return 3
            def __getitem__(self, i):
                return torch.rand(())
        torch.manual_seed(0)
        loader = torch.utils.data.DataLoader(Data(), batch_size=2)
        seen['values'] = [x.tolist() for x in loader]
        seen['has'] = hasattr(Data(), '__getitems__')
        """,
    hub="""
        import mmpretrain
        from mmpretrain.apis.model import ModelHub
        ModelHub._register_mmpretrain_models()
        ours = {'deit_tiny', 'deit_base_384'}
        seen['models'] = sorted(n for n in mmpretrain.list_models() if 'deit_plugin' not in
                                str(ModelHub._models_dict[n].filepath))
        seen['entry'] = str(ModelHub.get('resnet18_8xb32_in1k').config.model)
        """,
)


@pytest.fixture(scope='module')
def seen(tmp_path_factory):
    """What they see without this package and with it, by name."""
    results = []
    for first in ('', 'import deit_plugin\n'):
        script = f'import json\n{first}everything = {{}}\n'
        for name, code in NEIGHBOURS.items():
            script += f'seen = everything[{name!r}] = {{}}\n{textwrap.dedent(code)}\n'
        result = run(script + 'print(); print(json.dumps(everything))', tmp_path_factory.mktemp('run'))
        assert result.returncode == 0, result.stderr[-2000:]
        results.append(json.loads(result.stdout.splitlines()[-1]))
    return results


@pytest.mark.slow
@pytest.mark.parametrize('name', NEIGHBOURS)
def test_with_and_without(name, seen):
    without, with_us = seen
    assert without[name] and without[name] == with_us[name]


def run(code, folder):
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(code)], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_name_that_is_in_the_hub_already_stays(tmp_path):
    (tmp_path / 'index.yml').write_text(
        'Models:\n  - Name: deit_tiny\n    Config: mine.py\n    In Collection: Mine\n'
        'Collections:\n  - Name: Mine\n'
    )
    (tmp_path / 'mine.py').write_text('model = dict(mine=True)')
    result = run(
        """
        from mmpretrain.apis.model import ModelHub
        ModelHub.register_model_index('index.yml', '.')
        import deit_plugin
        from deit_plugin.apis.hub import variants
        own = variants()
        print(ModelHub.get('deit_tiny').config.model.mine, 'deit_tiny' in own, 'deit_small' in own)
        """,
        tmp_path,
    )
    assert result.stdout.splitlines()[-1] == 'True False True', result.stderr
    said = result.stdout + result.stderr
    assert "hub has a model 'deit_tiny' already, of " in said and 'index.yml' in said


@pytest.mark.slow
def test_a_class_that_is_registered_already_is_named(tmp_path):
    (tmp_path / 'neighbour.py').write_text(
        'from mmpretrain.registry import MODELS\n\n\n@MODELS.register_module()\nclass DeiT:\n    pass\n'
    )
    result = run('import neighbour, deit_plugin', tmp_path)
    last = result.stderr.splitlines()[-1]
    assert last.startswith('ImportError: deit_plugin cannot register its parts: DeiT is already registered')
    assert 'neighbour' in last and 'import only one of them' in last


def test_the_package_says_what_it_changes():
    import deit_plugin

    for word in ('registries', 'CheckpointLoader', 'weights_only', 'hub', 'atomic_local', 'pycocotools'):
        assert word in deit_plugin.__doc__


@pytest.mark.slow
def test_beside_transformers_5_and_pycocotools(tmp_path):
    """Where mmpretrain without this package cannot import its own models."""
    transformers = pytest.importorskip('transformers', minversion='5.0')
    metadata = tmp_path / 'pycocotools-2.0.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Metadata-Version: 2.1\nName: pycocotools\nVersion: 2.0\n')
    (tmp_path / 'pycocotools').mkdir()
    (tmp_path / 'pycocotools' / '__init__.py').touch()
    (tmp_path / 'pycocotools' / 'coco.py').write_text('class COCO:\n    pass\n')

    def said(code):
        env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
        command = [sys.executable, '-c', code]
        return subprocess.run(command, env=env, capture_output=True, text=True).stderr

    assert 'NoneType takes no arguments' in said('import mmpretrain.models'), transformers.__version__
    models = 'from mmpretrain.registry import MODELS; MODELS.get("DeiT"), MODELS.get("ResNet")'
    told = said(f'import deit_plugin; {models}; MODELS.get("BlipCaption")()')
    assert "mmpretrain's multi-modal models are left out" in told
    assert 'requires extra multi-modal dependencies' in told.rstrip().splitlines()[-1]
