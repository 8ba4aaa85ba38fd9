"""What is said of the students' configs is the same everywhere, and timm's."""

import re

import pytest
import timm
import torch
from conftest import CONFIGS, config
from mmpretrain.apis.model import ModelHub

NAMES = sorted(path.stem for path in (CONFIGS / 'students').glob('*.py') if 'digits' not in path.stem)
ROWS = (CONFIGS / 'students' / 'README.md').read_text()


def test_metafile_and_table_name_all():
    listed = [n for n, info in ModelHub._models_dict.items() if 'students' in str(info.filepath)]
    assert sorted(listed) == NAMES
    assert re.findall(r'(?m)^\| `(\w+)` \|', ROWS) == listed


@pytest.mark.parametrize('name', NAMES)
def test_figures_weights_and_sizes(name):
    text = (CONFIGS / 'students' / f'{name}.py').read_text()
    published = float(re.search(r'Published top-1: ([\d.]+) \(', text)[1])
    info = ModelHub.get(name)
    metrics = info.results[0].metrics
    assert metrics['Top 1 Accuracy'] == published
    top5 = metrics.get('Top 5 Accuracy', '-')
    params, flops = info.metadata.parameters, info.metadata.flops
    model = info.config.model
    side = info.config.test_pipeline[-2].crop_size
    cells = f'{published} / {top5} | not measured | {params / 1e6:.2f}M | {flops / 1e9:.2f}G | {side}'
    assert f'| `{name}` | {cells} |' in ROWS
    kwargs = {k: model[k] for k in ('drop_path_rate',) if k in model}
    with torch.device('meta'):
        peer = timm.create_model(model.model_name, num_classes=model.num_classes, **kwargs)
    assert sum(p.numel() for p in peer.parameters()) == params
    if info.weights:
        hub, file = re.fullmatch(
            r'https://huggingface.co/(timm/[\w.]+)/resolve/main/(.*)', info.weights
        ).groups()
        assert file == 'model.safetensors'
        assert timm.get_pretrained_cfg(hub.removeprefix('timm/')).hf_hub_id == hub
        assert hub.startswith(f'timm/{model.model_name}.') and f'(https://huggingface.co/{hub})' in ROWS
        for epochs in re.findall(r'dist_(\d+)e', hub):
            assert info.config.train_cfg.max_epochs == int(epochs)


@pytest.mark.parametrize('name', [n for n in NAMES if n.startswith('fastvit')])
def test_fastvit_sees_the_images_of_timm(name):
    cfg = config(f'students/{name}')
    own = timm.get_pretrained_cfg(cfg.model.model_name)
    _, resize, crop, _ = cfg.test_pipeline
    assert cfg.train_pipeline[0].scale == crop.crop_size == own.input_size[-1] == 256
    assert cfg.val_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline == cfg.test_pipeline
    assert resize.scale == int(256 / {284: 0.9, 269: 0.95}[resize.scale])
