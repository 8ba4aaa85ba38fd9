"""docs/ecosystem.md: mmseg and mmdet train the examples by `mim`, on a few images made here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import test_dense
import torch
from examples import examples
from PIL import Image

checkpoints = test_dense.checkpoints
NO_WORKERS = [
    f'{loader}_dataloader.{option}'
    for loader in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def train(name, config, folder, *options):
    """Run the block's command with a small model; returns the last checkpoint."""
    text = examples(name)[0]
    for old, new in test_dense.SMALL.items():
        assert old in text, f'{old} is no longer in the example of {name}'
        text = text.replace(old, new)
    address = text.partition("checkpoint='")[2].partition("'")[0]
    text = text.replace(address, 'published.pth')
    if not test_dense.COMPILED:
        text = text.replace("imports=['", "imports=['mmcv_without_ops', '")
        (folder / 'mmcv_without_ops.py').write_text(examples('mmseg')[1])
    (folder / config).write_text(text + test_dense.TESTS[name])
    (block,) = examples(name, 'bash')
    done = subprocess.run(
        ['bash', '-euc', f'{block.strip()} --cfg-options "$@"', 'bash', *options, *NO_WORKERS],
        cwd=folder,
        env={
            **os.environ,
            'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
            'PYTHONPATH': os.pathsep.join(['.', os.environ.get('PYTHONPATH', '')]),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    run = folder / 'work_dirs' / Path(config).stem
    return done.stdout + done.stderr, torch.load((run / 'last_checkpoint').read_text(), weights_only=False)


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def ade(tmp_path):
    """Two images each to train on and to validate on, of a left and a right half."""
    halves = np.repeat(np.repeat([[1, 2]], 64, axis=1), 96, axis=0).astype(np.uint8)
    root = tmp_path / 'data' / 'ade' / 'ADEChallengeData2016'
    for part in ('training', 'validation'):
        for i in range(2):
            photo(root / 'images' / part / f'{i}.jpg')
            truth = root / 'annotations' / part / f'{i}.png'
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(halves).save(truth)


@pytest.fixture
def coco(tmp_path):
    """Two images each, with a person."""
    root = tmp_path / 'data' / 'coco'
    (root / 'annotations').mkdir(parents=True)
    for part in ('train2017', 'val2017'):
        images = [dict(id=i, file_name=f'{i}.jpg', height=96, width=128) for i in range(2)]
        boxes = [
            dict(id=i + 1, image_id=i, category_id=1, bbox=[20, 10, 60, 70], area=4200, iscrowd=0)
            for i in range(2)
        ]
        for image in images:
            photo(root / part / image['file_name'])
        truth = dict(images=images, annotations=boxes, categories=[dict(id=1, name='person')])
        (root / 'annotations' / f'instances_{part}.json').write_text(json.dumps(truth))


def assert_trained(checkpoint, folder):
    """The optimizer has seen the backbone, which began with the weights of the checkpoint."""
    own, given = checkpoint['state_dict'], torch.load(folder / 'ours.pth')['state_dict']
    for name in ('backbone.layers.5.attn.qkv.weight', 'backbone.dist_token'):
        change = (own[name] - given[name]).abs().max()
        assert 0 < change < 0.01, name


@pytest.mark.tool('mmseg', '`mim train`')
def test_mmseg_trains(ade, tmp_path, checkpoints):
    pytest.importorskip('mmseg')
    said, checkpoint = train(
        'mmseg',
        'upernet.py',
        tmp_path,
        *('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.logger.interval=1'),
        *('default_hooks.checkpoint.interval=2', 'train_dataloader.batch_size=2'),
        'train_dataloader.dataset.pipeline.2.scale=(128,96)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'val_dataloader.dataset.pipeline.1.scale=(128,96)',
    )
    assert 'Iter(train) [2/2]' in ' '.join(said.split()) and 'mIoU: ' in said
    assert_trained(checkpoint, tmp_path)


@pytest.mark.tool('mmdet', '`mim train`')
def test_mmdet_trains(coco, tmp_path, checkpoints):
    pytest.importorskip('mmdet')
    said, checkpoint = train(
        'mmdet',
        'retinanet.py',
        tmp_path,
        *('train_cfg.max_epochs=1', 'default_hooks.logger.interval=1', 'model.bbox_head.num_classes=1'),
        'train_dataloader.dataset.pipeline.2.scale=(128,96)',
        'val_dataloader.dataset.pipeline.1.scale=(128,96)',
    )
    assert 'coco/bbox_mAP: ' in said
    assert_trained(checkpoint, tmp_path)
