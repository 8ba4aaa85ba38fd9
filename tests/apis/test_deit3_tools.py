"""A DeiT III after its training: the checkpoint alone tells the tools what it is."""

import pytest
import timm
import torch
from conftest import ARCH, NUM_CLASSES, make_runner
from mmengine.utils import digit_version
from peers import SIDE, SMALL_DEIT3
from PIL import Image
from sklearn.datasets import load_sample_images

from deit_plugin.apis.convert import convert
from deit_plugin.apis.evaluate import evaluate
from deit_plugin.apis.export import export
from deit_plugin.apis.predict import Predictor, predict
from deit_plugin.export.programs import run
from deit_plugin.visualization.attention import attention_maps

PIPELINE = [
    dict(type='LoadImage'),
    dict(type='ResizeEdge', scale=SIDE, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=SIDE),
    dict(type='PackInputs'),
]


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """The folder of a training, with images."""
    folder = tmp_path_factory.mktemp('work')
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='DeiTIII', arch=ARCH, img_size=SIDE, patch_size=8, drop_path_rate=0.1),
        head=dict(type='DeiTHead', num_classes=NUM_CLASSES, in_channels=32),
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
    )
    test = dict(
        test_cfg=dict(),
        test_evaluator=dict(type='Scripted', values=[1.0]),
        test_dataloader=dict(
            dataset=dict(type='Noise', pipeline=PIPELINE),
            batch_size=2,
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
    )
    make_runner(model, folder, scores=(1.0,), **test).train()
    for i in range(NUM_CLASSES):
        (folder / 'images' / f'class {i}').mkdir(parents=True)
        for j, photo in enumerate(load_sample_images().images):
            part = photo[40 * i : 40 * i + 150, 50 * i : 50 * i + 210]
            Image.fromarray(part).save(folder / 'images' / f'class {i}' / f'{j}.png')
    return folder


@pytest.fixture(scope='module')
def theirs(work):
    """timm's model with its weights."""
    path = str(work / 'timm.pth')
    convert(str(work / 'epoch_1.pth'), path, 'timm')
    name = 'deit3_small_patch16_224'
    return timm.create_model(name, checkpoint_path=path, num_classes=NUM_CLASSES, **SMALL_DEIT3).eval()


def test_it_has_learnt(work):
    weights = torch.load(work / 'epoch_1.pth')['state_dict']
    scales = [value for name, value in weights.items() if 'gamma' in name]
    assert len(scales) == 6 and all((value != 1e-4).any() for value in scales)


def test_predictions_are_timms(work, theirs):
    predictor = Predictor(str(work), device='cpu')
    results = predict(str(work), [str(work / 'images')], device='cpu')
    assert len(results) == 2 * NUM_CLASSES
    for result in results:
        with torch.no_grad():
            expected = theirs(predictor.prepare([result['image']])).softmax(1)[0]
        given = {found['name']: found['prediction'] for found in result['classes']}
        assert [given[name] for name in predictor.classes] == pytest.approx(expected.tolist(), abs=1e-5)


def test_evaluation_is_timms(work, theirs):
    (result,) = evaluate([], str(work / 'images'), str(work), workers=0)
    predictor = Predictor(str(work), device='cpu')
    paths = [str(work / 'images' / f'class {i}' / f'{j}.png') for i in range(NUM_CLASSES) for j in range(2)]
    with torch.no_grad():
        answers = theirs(predictor.prepare(paths)).argmax(1)
    hits = (answers == torch.arange(NUM_CLASSES).repeat_interleave(2)).double().mean().item()
    assert result['measured']['top1'] == pytest.approx(100 * hits)


@pytest.mark.slow
@pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.8.0'), reason='to export takes torch >= 2.8'
)
def test_the_exported_program_is_timms(work, theirs, tmp_path):
    """Of another size, too; positions are interpolated without those of tokens."""
    path = str(tmp_path / 'a.pt2')
    export(str(work), 'torch-export', output=path, dynamic=('batch', 'size'))
    program = run(path, ('logits',))
    x = torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(program(x)['logits'], theirs(x), atol=1e-5, rtol=0)
    assert program(torch.randn(1, 3, 48, 40))['logits'].shape == (1, NUM_CLASSES)


def test_its_attention(work):
    predictor = Predictor(str(work), device='cpu')
    maps = attention_maps(predictor.model.backbone, torch.randn(2, 3, SIDE, SIDE))
    assert maps.mean.shape == (2, 1, 4, 4)


def test_a_training_goes_on_from_the_references_file(work, tmp_path):
    """`load_from`, under the names of models_v2.py and with other classes."""
    convert(str(work / 'epoch_1.pth'), str(tmp_path / 'a.pth'), 'facebook')
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='DeiTIII', arch=ARCH, img_size=SIDE, patch_size=8),
        head=dict(type='DeiTHead', num_classes=NUM_CLASSES + 1, in_channels=32),
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
    )
    hooks = [dict(type='FilledModelHook')]
    optimizer = dict(optimizer=dict(type='SGD', lr=0.0))
    runner = make_runner(
        model,
        tmp_path,
        scores=(1.0,),
        load_from=str(tmp_path / 'a.pth'),
        custom_hooks=hooks,
        optim_wrapper=optimizer,
    )
    runner.train()
    assert 'newly drawn: head.layers.head.weight' in next(tmp_path.rglob('*.log')).read_text()
    before = torch.load(work / 'epoch_1.pth')['state_dict']
    after = runner.model.backbone.state_dict()
    assert all(torch.equal(value, before[f'backbone.{name}']) for name, value in after.items())
