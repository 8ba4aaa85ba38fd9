"""What follows a training, with students that have two heads and are no DeiTs."""

import copy
import json

import numpy as np
import pytest
import torch
from conftest import make_runner
from mmengine.utils import digit_version
from PIL import Image
from students import CLASSES, STUDENTS, K, drawn, pipeline, save

from deit_plugin.__main__ import main
from deit_plugin.apis.evaluate import evaluate
from deit_plugin.apis.export import export
from deit_plugin.apis.predict import Predictor
from deit_plugin.export.classifier import ExportedClassifier
from deit_plugin.export.formats import HEADS
from deit_plugin.export.programs import run


def by_hand(name, model, images):
    """Both logits by the layers of the heads."""
    if name in ('repvit', 'timm_levit'):
        own = model.model
        pooled = own.forward_head(own.forward_features(images), pre_logits=True)
        head = own.head if name == 'repvit' else own
        return head.head(pooled), head.head_dist(pooled)
    feats, head = model.extract_feat(images), model.head
    if name == 'deit':
        return head.layers.head(feats[-1][0]), head.layers.head_dist(feats[-1][1])
    return head.head(feats[-1]), (head.head_dist if name == 'levit' else head.dist_head)(feats[-1])


exports = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.8.0'), reason='to export takes torch >= 2.8'
)


@pytest.fixture(scope='module', params=STUDENTS)
def student(request, tmp_path_factory):
    cfg, side = STUDENTS[request.param]
    path = tmp_path_factory.mktemp(request.param) / 'student.pth'
    torch.manual_seed(0)
    model = save(path, cfg, side)
    return request.param, str(path), model, side


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One image of each class."""
    folder = tmp_path_factory.mktemp('images')
    draw = np.random.RandomState(0)
    for name in CLASSES:
        (folder / name).mkdir()
        Image.fromarray(draw.randint(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name / '0.png')
    return folder


@torch.no_grad()
def test_predict_tells_both_heads(student, folder, tmp_path):
    name, path, model, _ = student
    assert main(['predict', path, str(folder), '--json', str(tmp_path / 'a.json')]) == 0
    results = json.loads((tmp_path / 'a.json').read_text())
    assert len(results) == len(CLASSES)
    prepare = Predictor(path, device='cpu').prepare
    for result in results:
        cls, dist = by_hand(name, model, prepare([result['image']]))
        expected = dict(prediction=(cls + dist) / 2, class_head=cls, distillation_head=dist)
        for found in result['classes']:
            i = CLASSES.index(found['name'])
            for key, logits in expected.items():
                assert found[key] == pytest.approx(logits.softmax(1)[0, i].item(), abs=1e-5), key


@torch.no_grad()
def test_each_head_is_exported(student):
    name, _, model, side = student
    images = torch.randn(2, 3, side, side)
    cls, dist = by_hand(name, model, images)
    softmax = torch.logaddexp(cls.log_softmax(1), dist.log_softmax(1)) - np.log(2)
    expected = dict(
        both=(cls, dist), mean=((cls + dist) / 2,), cls=(cls,), dist=(dist,), mean_softmax=(softmax,)
    )
    assert expected.keys() == set(HEADS)
    for head, logits in expected.items():
        given = ExportedClassifier(model, head).eval()
        assert len(given.names) == len(logits)
        torch.testing.assert_close(given(images), logits, atol=1e-5, rtol=1e-5)
    model.prediction = 'dist'
    torch.testing.assert_close(ExportedClassifier(model).eval()(images), (dist,), atol=1e-5, rtol=1e-5)
    model.prediction = 'mean'


@exports
@pytest.mark.parametrize(
    'student, to',
    [
        pytest.param('repvit', 'torch-export', marks=pytest.mark.slow),
        pytest.param('levit', 'onnx', marks=pytest.mark.slow),
    ],
    indirect=['student'],
)
@torch.no_grad()
def test_exported_programs_run(student, to, tmp_path):
    if to == 'onnx':
        pytest.importorskip('onnxscript'), pytest.importorskip('onnxruntime')
    name, path, model, side = student
    target = str(tmp_path / ('a.onnx' if to == 'onnx' else 'a.pt2'))
    options = ['--head', 'both', '--dynamic', 'batch', '--output', target]
    assert main(['export', path, '--to', to, *options]) == 0
    images = torch.randn(2, 3, side, side)
    given = run(target, ('class_logits', 'distillation_logits'))(images)
    for one, other in zip(given.values(), by_hand(name, model, images), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@exports
def test_a_size_of_ones_choice_is_for_deits(student, tmp_path):
    with pytest.raises(ValueError, match='--dynamic size: only a DeiT takes images of other sizes'):
        export(student[1], 'torch-export', str(tmp_path / 'a.pt2'), dynamic=['size'])


@torch.no_grad()
def test_a_checkpoint_is_evaluated(student, folder):
    """By what it records, and by the names of the classes' folders."""
    name, path, model, _ = student
    (result,) = evaluate([], str(folder), path, workers=0)
    prepare = Predictor(path, device='cpu').prepare
    hits = 0
    for i, label in enumerate(CLASSES):
        cls, dist = by_hand(name, model, prepare([str(folder / label / '0.png')]))
        hits += int((cls + dist).argmax() == i)
    assert result['measured']['top1'] == pytest.approx(100 * hits / len(CLASSES))


CONFIG = """
custom_imports = dict(imports=['deit_plugin'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = {model!r}
data_preprocessor = dict(type='ClsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, to_rgb=True)
test_dataloader = dict(
    dataset=dict(type='ImageFolder', pipeline=[dict(type='LoadImage'), *{pipeline!r}]),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
test_cfg = dict()
test_evaluator = dict(type='Accuracy', topk=(1,))
"""


@pytest.mark.parametrize('name', ['levit', 'efficientformer', 'repvit', 'timm_levit'])
@torch.no_grad()
def test_weights_tell_the_classes_of_a_config(name, folder, tmp_path):
    """Weights alone, of timm by timm's own names, and a config of ImageNet's classes."""
    cfg, side = STUDENTS[name]
    model = drawn(cfg)
    weights = {k.removeprefix('model.'): v for k, v in model.state_dict().items()}
    torch.save(weights, tmp_path / 'weights.pth')
    cfg = copy.deepcopy(cfg)
    if 'head' in cfg:
        cfg['head']['num_classes'] = 1000
    else:
        del cfg['num_classes']  # timm's own
    (tmp_path / 'c.py').write_text(CONFIG.format(model=cfg, pipeline=pipeline(side)))
    weights, config = str(tmp_path / 'weights.pth'), str(tmp_path / 'c.py')
    (result,) = evaluate([config], str(folder), weights, workers=0)
    predictor = Predictor(weights, config, 'cpu')
    assert predictor.classes == [str(i) for i in range(K)]
    paths = [str(folder / label / '0.png') for label in CLASSES]
    images = predictor.prepare(paths)
    torch.testing.assert_close(predictor.model(images), model(images))
    hits = (model(images).argmax(1) == torch.arange(K)).float().mean().item()
    assert result['measured']['top1'] == pytest.approx(100 * hits)


def test_weights_of_another_family(tmp_path):
    """Whose integers are no reason."""
    torch.save(drawn(STUDENTS['timm_levit'][0]).state_dict(), tmp_path / 'levit.pth')
    with pytest.raises(ValueError, match='(?s)levit.pth does not fit the model: .*size mismatch'):
        Predictor(str(tmp_path / 'levit.pth'), 'repvit_m0_9', 'cpu')


@pytest.mark.parametrize('name', ['levit', 'repvit'])
def test_from_a_training_to_its_predictions(name, folder, tmp_path, capsys):
    """A work folder with a moving average, of a training that was resumed."""
    cfg, side = STUDENTS[name]
    cfg = dict(copy.deepcopy(cfg), data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, num_classes=K))
    loss = dict(type='DistillationLoss', mode='none')
    cfg.update(loss=loss) if name == 'repvit' else cfg['head'].update(loss=loss)
    if name == 'levit':
        cfg['backbone']['img_size'] = side = 32
    test = dict(
        batch_size=1,
        dataset=dict(type='Noise', pipeline=[dict(type='LoadImage'), *pipeline(side)]),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    hooks = [dict(type='EMAHook', momentum=0.1)]
    for epochs in (1, 2):
        runner = make_runner(cfg, tmp_path, (1.0, 2.0)[:epochs], custom_hooks=hooks, resume=epochs == 2)
        runner.cfg.test_dataloader = test
        runner.train()
    averaged = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook').ema_model.module.eval()
    predictor = Predictor(str(tmp_path), device='cpu')
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        expected = averaged(images).softmax(1)
        for reading in (predictor.model(images).softmax(1), predictor.probabilities(images)['prediction']):
            torch.testing.assert_close(reading, expected)
    assert main(['predict', str(tmp_path), str(folder)]) == 0
    assert 'distillation head' in capsys.readouterr().out
    (result,) = evaluate([], str(folder), str(tmp_path), workers=0)
    assert result['weights'] == str(tmp_path / 'best_accuracy_top1_epoch_2.pth')
