"""Students that are no DeiTs, out to timm and transformers, each by its own ordinary call."""

import argparse
import json

import numpy as np
import pytest
import timm
import torch
import transformers
from conftest import ROOT, build
from mmengine.config import Config
from mmpretrain.models import EfficientFormer, LeViT
from mmpretrain.registry import MODELS
from PIL import Image
from safetensors.torch import load_file
from students import (
    CLASSES,
    EFFICIENTFORMER,
    LEVIT,
    LEVITS,
    REPVIT,
    STUDENTS,
    TIMM,
    TIMM_LEVIT,
    V2,
    K,
    drawn,
    save,
)

from deit_plugin.__main__ import main
from deit_plugin.apis import student_configs
from deit_plugin.apis.convert import convert
from deit_plugin.apis.evaluated import model_of
from deit_plugin.apis.predict import Predictor
from deit_plugin.checkpoints.student_names import levit_to_transformers, student_to_timm
from deit_plugin.checkpoints.timm_model import efficientformer_model, levit_model
from deit_plugin.commands import COMMANDS

CALLED = ('AutoModelForImageClassification', 'AutoImageProcessor')
NARROW = dict(embed_dims=(8, 16, 24, 32), depths=(1, 1, 1, 2))
PEERS = dict(
    levit=('levit_128s', LEVITS),
    efficientformer=('efficientformer_l1', NARROW),
    repvit=('repvit_m0_9', {k: v for k, v in TIMM.items() if k != 'num_classes'}),
    timm_levit=('levit_128s', LEVITS),
)


@pytest.fixture(scope='module', params=PEERS)
def student(request, tmp_path_factory):
    cfg, side = STUDENTS[request.param]
    path = tmp_path_factory.mktemp(request.param) / 'student.pth'
    torch.manual_seed(0)
    return request.param, str(path), save(path, cfg, side), side


@pytest.mark.parametrize('file', ['a.pth', 'a.safetensors'])
@torch.no_grad()
def test_timm_loads_it(student, file, tmp_path):
    name, path, model, side = student
    assert main(['convert', path, str(tmp_path / file), '--to', 'timm']) == 0
    kind, args = PEERS[name]
    peer = timm.create_model(kind, num_classes=K, **args)
    if file == 'a.pth':
        peer.load_state_dict(torch.load(tmp_path / file), strict=True)
    else:
        timm.models.load_checkpoint(peer, str(tmp_path / file))
    images = torch.randn(2, 3, side, side)
    torch.testing.assert_close(peer.eval()(images), model(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_transformers_loads_it(student, tmp_path):
    name, path, model, side = student
    convert(path, str(tmp_path / 'hub'), 'transformers')
    peer, info = transformers.AutoModelForImageClassification.from_pretrained(
        tmp_path / 'hub', output_loading_info=True
    )
    if 'levit' in name:
        assert type(peer) is transformers.LevitForImageClassificationWithTeacher
    assert not any(info.values())
    images = torch.randn(2, 3, side, side)
    answer = peer.eval()(images)
    torch.testing.assert_close(answer.logits, model(images), atol=1e-5, rtol=1e-5)
    assert [peer.config.id2label[i] for i in range(K)] == CLASSES
    if 'levit' in name:
        cls, dist = answer.cls_logits, answer.distillation_logits
        probabilities = Predictor(path, device='cpu').probabilities(images)
        torch.testing.assert_close(cls.softmax(1), probabilities['class_head'])
        torch.testing.assert_close(dist.softmax(1), probabilities['distillation_head'])


def test_transformers_prepares_images_as_evaluation_does(student, tmp_path):
    _, path, _, side = student
    convert(path, str(tmp_path / 'hub'), 'transformers')
    image = np.random.RandomState(0).randint(0, 256, (90, 130, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / 'a.png')
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / 'hub')
    given = processor(Image.open(tmp_path / 'a.png'), return_tensors='pt')['pixel_values']
    expected = Predictor(path, device='cpu').prepare([str(tmp_path / 'a.png')])
    assert given.shape == expected.shape
    assert (given - expected).abs().max() <= 2.5 / 60  # two levels of 255, by another rounding


def test_another_preparation_is_not_written(tmp_path, monkeypatch):
    save(tmp_path / 'a.pth', REPVIT, 32)
    content = torch.load(tmp_path / 'a.pth')
    content['meta']['cfg'] = content['meta']['cfg'].replace('ResizeEdge', 'Pad')
    torch.save(content, tmp_path / 'a.pth')
    said = []
    monkeypatch.setattr(student_configs, 'print_log', lambda text, **_: said.append(text))
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), 'transformers')
    config = json.loads((tmp_path / 'hub' / 'config.json').read_text())
    own = timm.get_pretrained_cfg('repvit_m0_9')
    assert config['pretrained_cfg']['input_size'] == [3, 224, 224]
    assert config['pretrained_cfg']['crop_pct'] == pytest.approx(own.crop_pct, abs=0.01)
    (line,) = said
    assert 'no ResizeEdge and CenterCrop' in line and 'repvit_m0_9' in line


@torch.no_grad()
def test_mmpretrain_loads_it(student, tmp_path):
    name, path, model, side = student
    convert(path, str(tmp_path / 'a.pth'), 'mmpretrain')
    cfg, _ = STUDENTS[name]
    twin = drawn(cfg)
    content = torch.load(tmp_path / 'a.pth')
    assert content['meta']['dataset_meta'] == dict(classes=CLASSES)
    twin.load_state_dict(content['state_dict'], strict=True)
    images = torch.randn(2, 3, side, side)
    assert torch.equal(twin.eval()(images), model.eval()(images))


@pytest.mark.parametrize('arch', ['128s', '128', '192', '256', '384'])
def test_names_and_shapes_of_each_levit(arch):
    with torch.device('meta'):
        cfg = dict(backbone=dict(type='LeViT', arch=arch), neck=dict(type='GlobalAveragePooling'))
        head = dict(type='LeViTClsHead', in_channels=LeViT.arch_zoo[arch]['embed_dims'][-1])
        own = MODELS.build(dict(type='mmpretrain.ImageClassifier', **cfg, head=head)).state_dict()
        theirs = timm.create_model(f'levit_{arch}').state_dict()
    renamed = student_to_timm(own, 'a file')
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in theirs.items()}
    assert levit_model(renamed) == (f'levit_{arch}', dict(num_classes=1000, img_size=224))
    args = levit_model(renamed, whole=True).args
    config = transformers.LevitConfig(
        hidden_sizes=args['embed_dim'],
        num_attention_heads=args['num_heads'],
        depths=args['depth'],
        key_dim=[args['key_dim']] * 3,
        num_labels=1000,
    )
    with torch.device('meta'):
        peer = transformers.LevitForImageClassificationWithTeacher(config).state_dict()
    given = levit_to_transformers(theirs)
    assert {k: v.shape for k, v in given.items()} == {k: v.shape for k, v in peer.items()}


@pytest.mark.parametrize('arch', ['l1', 'l3', 'l7'])
def test_names_and_shapes_of_each_efficientformer(arch):
    with torch.device('meta'):
        neck = dict(type='GlobalAveragePooling', dim=1)
        width = EfficientFormer.arch_settings[arch]['embed_dims'][-1]
        head = dict(type='EfficientFormerClsHead', in_channels=width, num_classes=1000)
        cfg = dict(backbone=dict(type='EfficientFormer', arch=arch), neck=neck, head=head)
        own = MODELS.build(dict(type='mmpretrain.ImageClassifier', **cfg)).state_dict()
        theirs = timm.create_model(f'efficientformer_{arch}').state_dict()
    renamed = student_to_timm(own, 'a file')
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in theirs.items()}
    assert efficientformer_model(renamed) == (f'efficientformer_{arch}', dict(num_classes=1000))


@torch.no_grad()
def test_weights_alone(tmp_path):
    """timm's published LeViTs are such; and one of mmpretrain without its config."""
    peer = timm.create_model('levit_128s', img_size=64).eval()
    torch.save(peer.state_dict(), tmp_path / 'levit.pth')
    convert(str(tmp_path / 'levit.pth'), str(tmp_path / 'hub'), 'transformers')
    model = transformers.LevitForImageClassificationWithTeacher.from_pretrained(tmp_path / 'hub')
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model.eval()(images).logits, peer(images), atol=1e-5, rtol=1e-5)
    assert model.config.id2label[0].startswith('tench')
    processor = json.loads((tmp_path / 'hub' / 'preprocessor_config.json').read_text())
    assert processor['size'] == dict(shortest_edge=71)  # of 64, as timm has it: 64 / 0.9
    model = drawn(LEVIT)
    torch.save(model.state_dict(), tmp_path / 'own.pth')
    convert(str(tmp_path / 'own.pth'), str(tmp_path / 'timm.pth'), 'timm')
    peer = timm.create_model('levit_128s', num_classes=K, **LEVITS)
    peer.load_state_dict(torch.load(tmp_path / 'timm.pth'))
    torch.testing.assert_close(peer.eval()(images), model(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_deit_of_timm_is_a_deit(tmp_path):
    cfg = dict(type='DistilledTimmClassifier', model_name='deit_tiny_distilled_patch16_224', num_classes=K)
    cfg.update(img_size=32, depth=1)
    model = save(tmp_path / 'deit.pth', cfg, 32)
    images = torch.randn(1, 3, 32, 32)
    convert(str(tmp_path / 'deit.pth'), str(tmp_path / 'hub'), 'transformers')
    peer = transformers.DeiTForImageClassificationWithTeacher.from_pretrained(tmp_path / 'hub')
    torch.testing.assert_close(peer.eval()(images).logits, model(images), atol=1e-5, rtol=1e-5)
    convert(str(tmp_path / 'deit.pth'), str(tmp_path / 'timm.pth'), 'timm')
    peer = timm.create_model(cfg['model_name'], num_classes=K, img_size=32, depth=1)
    peer.load_state_dict(torch.load(tmp_path / 'timm.pth'))
    torch.testing.assert_close(peer.eval()(images), model(images))


def test_what_the_docs_call(tmp_path, monkeypatch):
    text = (ROOT / 'docs/students.md').read_text().split('## After the training\n')[1]
    commands = {command.__name__.rpartition('.')[2]: command for command in COMMANDS}
    for line in text.split('```bash\n')[1].split('```')[0].splitlines():
        tool, name, *arguments = line.split()
        commands[name].add_arguments(parser := argparse.ArgumentParser())
        assert tool == 'deit-plugin' and parser.parse_args(arguments)
    monkeypatch.chdir(tmp_path)
    full = dict(type='DistilledTimmClassifier', model_name='levit_128s', num_classes=1000)
    save(tmp_path / 'levit.pth', full, 224)
    save(tmp_path / 'repvit.pth', REPVIT, 32)
    convert('levit.pth', 'levit.safetensors', 'timm')
    convert('levit.pth', 'hub/levit', 'transformers')
    convert('repvit.pth', 'hub/repvit', 'transformers')
    names = {name: getattr(transformers, name) for name in CALLED}
    exec(text.split('```python\n')[1].split('```')[0], dict(names, timm=timm))
    written, _, after = text.partition('evaluate levit_128s --data data/imagenet --weights levit.safetensors')
    assert after and 'levit.safetensors --to timm' in written
    student = build(dict(model_of('levit_128s', 'levit.safetensors').cfg.model, teacher=None))
    student.load_state_dict(load_file('levit.safetensors'), strict=True)


def cut(path, model):
    """The checkpoint without a weight."""
    content = torch.load(path)
    content['state_dict'].popitem()
    torch.save(content, path)


def without_record(path, model):
    torch.save(model.state_dict(), path)


def another(path, model):
    """Recorded as a model of another depth."""
    content = torch.load(path)
    content['meta']['cfg'] = content['meta']['cfg'].replace("'depth': (1, 1, 2, 1)", "'depth': (1, 1, 1, 1)")
    torch.save(content, path)


def of_one_head(cfg):
    """Without distillation."""
    loss = dict(type='DistillationLoss', mode='none', distill_on='cls')
    return dict(cfg, head=dict(cfg['head'], distillation=False, loss=loss))


DEPLOYED = dict(
    LEVIT,
    backbone=dict(LEVIT['backbone'], deploy=True),
    head=dict(LEVIT['head'], type='TrainableLeViTClsHead', deploy=True),
)


@pytest.mark.parametrize(
    'cfg, side',
    [(DEPLOYED, 64), (of_one_head(LEVIT), 64), (of_one_head(EFFICIENTFORMER), 224)],
    ids=['deployed', 'levit', 'efficientformer'],
)
def test_what_mmpretrain_alone_has_stays_its_own(cfg, side, tmp_path):
    model = save(tmp_path / 'a.pth', cfg, side)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), 'mmpretrain')
    content = torch.load(tmp_path / 'b.pth')
    assert content['meta']['dataset_meta'] == dict(classes=CLASSES)
    assert content['state_dict'].keys() == model.state_dict().keys()


@torch.no_grad()
def test_a_levit_with_one_head(tmp_path):
    model = save(tmp_path / 'a.pth', of_one_head(LEVIT), 64)
    images = torch.randn(2, 3, 64, 64)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'timm.pth'), 'timm')
    peer = timm.create_model('levit_128s', num_classes=K, distilled=False, **LEVITS)
    peer.load_state_dict(torch.load(tmp_path / 'timm.pth'))
    torch.testing.assert_close(peer.eval()(images), model(images), atol=1e-5, rtol=1e-5)
    of_timm = dict(TIMM_LEVIT, distilled=False, loss=dict(type='CrossEntropyLoss'))
    other = save(tmp_path / 'b.pth', of_timm, 64)
    for name, expected in dict(a=model, b=other).items():
        convert(str(tmp_path / f'{name}.pth'), str(tmp_path / name), 'transformers')
        kind = transformers.LevitForImageClassification
        peer, info = kind.from_pretrained(tmp_path / name, output_loading_info=True)
        assert not any(info.values()) and peer.config.architectures == [kind.__name__]
        torch.testing.assert_close(peer.eval()(images).logits, expected(images), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_config_in_the_docs(tmp_path):
    """Over mmpretrain's own, which writes defaults out, such as attn_ratio."""
    text = (ROOT / 'docs/students.md').read_text().split('## LeViT of mmpretrain\n')[1]
    (tmp_path / 'config.py').write_text(text.split('```python\n')[1].split('```')[0])
    cfg = Config.fromfile(str(tmp_path / 'config.py')).model.to_dict()
    assert cfg['backbone']['attn_ratio'] == 2
    cfg['backbone'].update(img_size=64, act_cfg=dict(type='HSwish'))
    cfg['head']['num_classes'] = K
    model = save(tmp_path / 'a.pth', cfg, 64)
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'timm.pth'), 'timm')
    peer = timm.create_model('levit_128s', num_classes=K, img_size=64)
    peer.load_state_dict(torch.load(tmp_path / 'timm.pth'))
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(peer.eval()(images), model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['repvit_m0_9', 'efficientformerv2_s0'])
@torch.no_grad()
def test_published_weights_with_the_name_of_their_variant(name, tmp_path):
    """Which record no config, of as many classes as they have."""
    model = timm.create_model(name, num_classes=K).eval()
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    command = ['convert', str(tmp_path / 'a.pth'), str(tmp_path / 'hub'), '--to', 'transformers']
    assert main(command) == 2
    assert main([*command, '--config', name]) == 0
    peer = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / 'hub').eval()
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(peer(images).logits, model(images), atol=1e-4, rtol=1e-4)
    (tmp_path / 'config.py').write_text(f"model = dict(type='TimmClassifier', model_name='{name}')")
    convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), 'timm', config=str(tmp_path / 'config.py'))
    given = torch.load(tmp_path / 'b.pth')
    assert all(torch.equal(given.pop(key), value) for key, value in model.state_dict().items()) and not given


@pytest.mark.parametrize(
    'config, message',
    [('repvit_m1_0', 'a.pth is not a whole repvit_m1_0 of timm'), ('no_such', 'is no variant and no file')],
)
def test_the_name_of_another_variant(config, message, tmp_path):
    torch.save(timm.create_model('repvit_m0_9', num_classes=K).state_dict(), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=message):
        convert(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), 'timm', config=config)
    assert not (tmp_path / 'b.pth').exists()


@pytest.mark.parametrize(
    'cfg, change, to, message',
    [
        (REPVIT, cut, 'timm', r'two.pth is not a whole repvit_m0_9 of timm: .*head_dist.l.bias'),
        (REPVIT, another, 'timm', 'is not a whole repvit_m0_9 of timm: .*stages.2.blocks.1'),
        (REPVIT, without_record, 'timm', 'is of no DeiT that is known here.*does not record'),
        (REPVIT, None, 'facebook', '--to facebook writes a DeiT, and .*two.pth is a repvit_m0_9'),
        (LEVIT, cut, 'timm', 'is not a whole levit_128s of timm: .*head_dist.linear.bias'),
        (
            dict(LEVIT, backbone=dict(LEVIT['backbone'], act_cfg=dict(type='ReLU'))),
            None,
            'transformers',
            r"has model.backbone.act_cfg=\{'type': 'ReLU'\}, for which transformers .*'HSwish'",
        ),
        (
            dict(EFFICIENTFORMER, backbone=dict(EFFICIENTFORMER['backbone'], pool_size=5)),
            None,
            'timm',
            'has model.backbone.pool_size=5, for which timm has no place: .*default, 3',
        ),
        (
            dict(LEVIT, backbone=dict(LEVIT['backbone'], attn_ratio=3)),
            None,
            'timm',
            'has model.backbone.attn_ratio=3, for which timm has no place: .*default, 2',
        ),
        (
            dict(
                LEVIT,
                backbone=dict(LEVIT['backbone'], arch=dict(LEVIT['backbone']['arch'], key_dims=[8, 16, 8])),
            ),
            None,
            'timm',
            r'timm has a LeViT with one key_dim for all stages, not with \[8, 16, 8\]',
        ),
        (DEPLOYED, None, 'timm', 'two.pth is a LeViT with `deploy=True`.*or --to mmpretrain'),
        (of_one_head(EFFICIENTFORMER), None, 'timm', 'timm has no EfficientFormer with one head'),
        (
            of_one_head(EFFICIENTFORMER),
            cut,
            'mmpretrain',
            'two.pth is not a whole DistilledClassifier of its',
        ),
        (V2, without_record, 'timm', 'is of no DeiT that is known here.*--config names one'),
    ],
)
def test_what_cannot_be_converted(cfg, change, to, message, tmp_path):
    source, target = tmp_path / 'two.pth', tmp_path / 'one'
    model = save(source, cfg, 64)
    if change:
        change(source, model)
    with pytest.raises(ValueError, match=message):
        convert(str(source), str(target), to)
    assert not target.exists()
