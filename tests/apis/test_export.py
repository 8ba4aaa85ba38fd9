"""Exported programs give what the model gives."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ARCH, NUM_CLASSES, distilled, shuffle_weights, teacher_cfg
from mmengine.utils import digit_version
from mmpretrain.registry import MODELS
from PIL import Image
from sklearn.datasets import load_sample_images

from deit_plugin.__main__ import main
from deit_plugin.apis import export as module
from deit_plugin.apis.export import export
from deit_plugin.apis.predict import Predictor
from deit_plugin.export.programs import run

pytestmark = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version('2.8.0'), reason='to export takes torch >= 2.8'
)
PIPELINE = [
    dict(type='ResizeEdge', scale=40, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=32),
    dict(type='PackInputs'),
]
RGB = dict(
    type='mmpretrain.ClsDataPreprocessor', mean=[123.7, 116.3, 103.5], std=[58.4, 57.1, 57.4], to_rgb=True
)
CLASSES = [f'class {i}' for i in range(NUM_CLASSES)]


def save(path, model):
    """A checkpoint as a training of that model writes it."""
    model = dict(model, data_preprocessor=dict(RGB))
    weights = shuffle_weights(MODELS.build({k: v for k, v in model.items() if k != 'teacher'})).state_dict()
    cfg = f'model = {model!r}\ntest_dataloader = dict(dataset=dict(pipeline={PIPELINE!r}))\n'
    meta = dict(cfg=cfg, dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=weights, meta=meta), path)
    return str(path)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp('export') / 'student.pth', distilled())


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """A folder with two images a class; the photographs' parts."""
    folder = tmp_path_factory.mktemp('images')
    for i, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for j, photo in enumerate(load_sample_images().images):
            Image.fromarray(photo[40 * i : 40 * i + 150, 50 * i : 50 * i + 210]).save(
                folder / name / f'{j}.png'
            )
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def both_logits(checkpoint, images):
    """In float64."""
    model = Predictor(checkpoint, device='cpu').model.double()
    with torch.no_grad():
        return model.head.dual_logits(model.extract_feat(images.double()))


def needs(to):
    if to == 'onnx':
        for name in ('onnx', 'onnxscript', 'onnxruntime'):
            pytest.importorskip(name)


SUFFIX = {'onnx': '.onnx', 'torch-export': '.pt2'}


@pytest.mark.parametrize(
    'to, head',
    [
        *[('torch-export', head) for head in (None, 'both', 'mean', 'cls', 'dist', 'mean_softmax')],
        *[('onnx', head) for head in (None, 'both', 'mean_softmax')],
    ],
)
def test_each_head(checkpoint, to, head):
    needs(to)
    export(checkpoint, to, head=head)
    images = torch.randn(1, 3, 32, 32)
    cls, dist = both_logits(checkpoint, images)
    mean_softmax = torch.log((cls.softmax(1) + dist.softmax(1)) / 2)
    expected = dict(
        both=dict(class_logits=cls, distillation_logits=dist),
        cls=dict(logits=cls),
        dist=dict(logits=dist),
        mean_softmax=dict(logits=mean_softmax),
    ).get(head, dict(logits=(cls + dist) / 2))
    given = run('model' + SUFFIX[to], tuple(expected))(images)
    assert given.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(given[name].double(), value, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('to', SUFFIX)
def test_any_batch_and_size(checkpoint, to):
    """The model's own size, where positions are not resized, among them."""
    needs(to)
    result = export(checkpoint, to, dynamic=('batch', 'size'), head='both')
    assert '3 x 3 x 32 x 32' in result['differences'] and max(result['differences'].values()) < 1e-5
    program = run('model' + SUFFIX[to], ('class_logits', 'distillation_logits'))
    for shape in [(1, 3, 32, 32), (7, 3, 16, 16), (1, 3, 64, 40), (2, 3, 32, 48)]:
        images = torch.randn(shape)
        for given, expected in zip(program(images).values(), both_logits(checkpoint, images)):
            torch.testing.assert_close(given.double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('to, dynamic', [('onnx', ('batch',)), ('torch-export', ())])
def test_images_as_they_are(checkpoint, images, to, dynamic):
    """Resized, cropped and normalised inside, as evaluation does it outside."""
    needs(to)
    result = export(checkpoint, to, preprocess=True, dynamic=dynamic, data=str(images))
    assert result['accuracy']['exported'] == result['accuracy']['pytorch']
    program, predictor = run('model' + SUFFIX[to], ('logits',)), Predictor(checkpoint, device='cpu')
    for path in images.glob('*/*.png'):
        whole = torch.from_numpy(np.array(Image.open(path)))[None]
        with torch.no_grad():
            expected = predictor.model(predictor.prepare([str(path)]))
        torch.testing.assert_close(program(whole)['logits'], expected, atol=1e-3, rtol=1e-3)


def test_the_mean_is_one_linear_layer(checkpoint):
    onnx = pytest.importorskip('onnx')
    export(checkpoint, 'onnx', head='mean')
    weights = [list(value.dims) for value in onnx.load('model.onnx').graph.initializer]
    assert [2 * ARCH['embed_dims'], NUM_CLASSES] in [sorted(w, reverse=True) for w in weights]
    assert [ARCH['embed_dims'], NUM_CLASSES] not in [sorted(w, reverse=True) for w in weights]


@pytest.mark.parametrize('whole', [False, True])
def test_the_file_tells_what_it_takes(checkpoint, whole):
    onnx = pytest.importorskip('onnx')
    export(checkpoint, 'onnx', preprocess=whole)
    model = onnx.load('model.onnx')
    notes = {item.key: item.value for item in model.metadata_props}
    assert json.loads(notes['classes']) == CLASSES
    if whole:
        assert notes['images'] == 'uint8 RGB (batch, height, width, 3)'
    else:
        images = json.loads(notes['images'])
        assert images['channels'] == 'RGB' and images['mean'] == pytest.approx(RGB['mean'])
        assert images['pipeline'] == PIPELINE
    (taken,) = model.graph.input
    sides = [d.dim_param or d.dim_value for d in taken.type.tensor_type.shape.dim]
    assert sides == ([1, 'height', 'width', 3] if whole else [1, 3, 32, 32])


def test_the_file_is_the_same_each_time_and_tells_nothing_of_the_machine(checkpoint):
    onnx = pytest.importorskip('onnx')
    for name in ('a.onnx', 'b.onnx'):
        export(checkpoint, 'onnx', output=name, dynamic=('batch', 'size'))
    first, second = (Path(name).read_bytes() for name in ('a.onnx', 'b.onnx'))
    assert first == second
    assert b'deit_plugin' not in first and b'.py' not in first
    model = onnx.load('a.onnx')
    (taken,), (given,) = model.graph.input, model.graph.output
    sides = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (taken, given)]
    assert sides == [['batch', 3, 'height', 'width'], ['batch', NUM_CLASSES]]
    notes = {item.key: item.value for item in model.metadata_props}
    assert json.loads(notes['size_is_a_multiple_of']) == [8, 8]


@pytest.mark.tool('onnxruntime', 'in float32 and int8')
@pytest.mark.parametrize('mode, preprocess', [('dynamic', False), ('static', True)])
def test_int8(checkpoint, images, mode, preprocess):
    """Layers with weights alone; the accuracy before and after is that of each file."""
    onnx = pytest.importorskip('onnx')
    export(checkpoint, 'onnx', output='float.onnx', preprocess=preprocess)
    calibration = str(images) if mode == 'static' else None
    result = export(
        checkpoint, 'onnx', int8=mode, calibration=calibration, preprocess=preprocess, data=str(images)
    )
    assert result['accuracy'].keys() == {'pytorch', 'exported', 'int8'}
    exact, rounded = result['differences'].values(), result['int8_differences'].values()
    assert max(exact) < 1e-4 < max(rounded) < 0.5
    before, after = (onnx.load(name).graph for name in ('float.onnx', 'model.onnx'))
    kinds = [node.op_type for node in after.node]
    if mode == 'dynamic':
        assert kinds.count('MatMulInteger') >= 4 * ARCH['num_layers']
    else:
        assert kinds.count('QuantizeLinear') >= 4 * ARCH['num_layers']
    types = {value.data_type for value in after.initializer}
    assert onnx.TensorProto.INT8 in types and onnx.TensorProto.FLOAT in types
    attention = sum(node.op_type == 'Softmax' for node in before.node)
    assert attention == kinds.count('Softmax') == ARCH['num_layers']
    hits = 0
    program = run('model.onnx', ('logits',))
    predictor = Predictor(checkpoint, device='cpu')
    for i, name in enumerate(CLASSES):
        for path in (images / name).iterdir():
            given = predictor.prepare([str(path)])
            if preprocess:
                given = torch.from_numpy(np.array(Image.open(path)))[None]
            hits += int(program(given)['logits'].argmax() == i)
    assert result['accuracy']['int8'] == 100 * hits / (2 * len(CLASSES))


def test_int8_that_is_nothing_like_the_model_is_not_written(checkpoint, images, tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    monkeypatch.setattr(module, 'TOLERANCE_OF_INT8', 1e-6)
    with pytest.raises(ValueError, match='calibrate it with more images'):
        export(checkpoint, 'onnx', int8='static', calibration=str(images))
    assert not list(tmp_path.iterdir())


def test_calibration_is_of_all_classes(checkpoint, images, monkeypatch):
    pytest.importorskip('onnxruntime')
    seen = []
    monkeypatch.setattr(module, 'MOST_CALIBRATION', len(CLASSES))
    monkeypatch.setattr(module.Samples, 'read', spy(module.Samples.read, seen))
    export(checkpoint, 'onnx', int8='static', calibration=str(images))
    assert {path.split('/')[-2] for path in seen} >= set(CLASSES)


def spy(method, seen):
    def read(self, paths):
        seen.extend(map(str, paths))
        return method(self, paths)

    return read


@pytest.mark.parametrize('to', SUFFIX)
def test_a_teacher_of_timm(tmp_path, to):
    needs(to)
    checkpoint = save(tmp_path / 'teacher.pth', teacher_cfg())
    export(checkpoint, to, dynamic=('batch',))
    model, images = Predictor(checkpoint, device='cpu').model, torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    torch.testing.assert_close(run('model' + SUFFIX[to], ('logits',))(images)['logits'], expected)


def test_on_the_command_line(checkpoint, images, capsys):
    arguments = ['--to', 'torch-export', '--dynamic', 'batch,size', '--data', str(images)]
    assert main(['export', checkpoint, *arguments]) == 0
    out = capsys.readouterr().out
    assert 'Images of 3 x 3 x 40 x 32: the logits differ by at most' in out
    assert 'Top-1 of pytorch:' in out and 'Top-1 of exported:' in out and 'model.pt2' in out
    assert main(['export', checkpoint, '--to', 'torch-export']) == 2
    assert '--force' in capsys.readouterr().err


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(to='tensorrt'), "'tensorrt' is unknown: choose one of"),
        (dict(head='median'), "--head 'median' is unknown"),
        (dict(dynamic=('width',)), '--dynamic width is unknown'),
        (dict(dynamic=('size',), preprocess=True), 'images have any size'),
        (dict(int8='int4', to='onnx'), "--int8 'int4' is unknown"),
        (dict(int8='dynamic'), '--int8 is for --to onnx'),
        (dict(int8='static', to='onnx'), 'needs --calibration FOLDER'),
        (dict(int8='dynamic', to='onnx', calibration='x'), 'and no other, needs --calibration'),
        (dict(calibration='x'), '--calibration is for --int8 static'),
        (dict(output='model.bin'), 'ends with .pt2'),
        (dict(data='nowhere'), 'is not a folder'),
        (
            dict(int8='static', to='onnx', calibration='{broken}'),
            '--calibration takes sound images: .*bad.png',
        ),
        (dict(data='{others}'), 'folders of other names'),
        (dict(int8='static', to='onnx', calibration='nowhere'), 'is no image'),
    ],
)
def test_wrong_arguments(checkpoint, tmp_path, tmp_path_factory, options, message):
    """Before anything is exported."""
    folder = tmp_path_factory.mktemp('odd')
    (folder / 'broken').mkdir()
    (folder / 'broken' / 'bad.png').write_bytes(b'no image')
    (folder / 'others' / 'cat').mkdir(parents=True)
    Image.new('RGB', (40, 40)).save(folder / 'others' / 'cat' / 'a.png')
    places = dict(broken=folder / 'broken', others=folder / 'others')
    options = {k: v.format(**places) if isinstance(v, str) else v for k, v in options.items()}
    with pytest.raises((ValueError, OSError), match=message):
        export(checkpoint, **{'to': 'torch-export', **options})
    assert not list(tmp_path.iterdir())


def test_a_teacher_has_one_head_and_one_size(tmp_path):
    checkpoint = save(tmp_path / 'teacher.pth', teacher_cfg())
    with pytest.raises(ValueError, match='TimmClassifier has one classifier, leave it out'):
        export(checkpoint, 'torch-export', head='cls')
    with pytest.raises(ValueError, match='only a DeiT takes images of other sizes'):
        export(checkpoint, 'torch-export', dynamic=('size',))


@pytest.mark.parametrize('wrong', [lambda x: x * 1.01, lambda x: x[:, :-1], lambda x: x * float('nan')])
def test_a_program_that_differs_is_not_written(checkpoint, tmp_path, monkeypatch, wrong):
    real = module.run

    def run(*args):
        program = real(*args)
        return lambda images: {name: wrong(value) for name, value in program(images).items()}

    monkeypatch.setattr(module, 'run', run)
    with pytest.raises(ValueError, match='Of images of 1 x 3 x 32 x 32 the'):
        export(checkpoint, 'torch-export')
    assert not list(tmp_path.iterdir())


def test_an_interruption_is_no_traceback(checkpoint, tmp_path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'trace', interrupted)
    assert main(['export', checkpoint, '--to', 'torch-export']) == 130
    assert capsys.readouterr().err.endswith('deit-plugin: interrupted\n')
    assert not list(tmp_path.iterdir())


def test_an_old_torch_is_told(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.6.0+cpu')
    assert main(['export', checkpoint, '--to', 'onnx']) == 2
    assert 'takes torch >= 2.8, here is 2.6.0+cpu' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['onnx', 'onnxscript', 'onnxruntime'])
def test_what_is_missing_is_told(checkpoint, tmp_path, capsys, monkeypatch, name):
    needs('onnx')
    monkeypatch.setitem(sys.modules, name, None)
    assert main(['export', checkpoint, '--to', 'onnx']) == 2
    assert f"{name} is needed for ONNX: `pip install 'deit_plugin[onnx]'`" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
