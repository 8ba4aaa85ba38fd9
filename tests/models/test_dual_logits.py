"""Distillation through the heads of mmpretrain, and of timm's models, against timm's own task."""

import copy
import re
from pathlib import Path

import pytest
import timm
import torch
import torch.nn as nn
from conftest import ARCH, InSinglePrecision, build, make_batch, make_runner, step
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from timm.task import TokenDistillationTask

from deit_plugin.models import Classifiers, classifiers
from deit_plugin.models import dual_logits as of_logits
from deit_plugin.models.dual_logits import dual_logits
from deit_plugin.models.teacher import Teacher
from deit_plugin.models.two_heads import two_heads

K = 5
TEACHER = dict(type='TimmClassifier', model_name='resnet10t', num_classes=K)
LOSS = dict(type='DistillationLoss')
# Of an ImageClassifier, as mmpretrain's configs have them; the second is its peer in timm.
LEVIT = dict(
    backbone=dict(type='LeViT', arch='128s', img_size=64),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LeViTClsHead', num_classes=K, in_channels=384),
)
NARROW = dict(depths=(1, 1, 1, 2), embed_dims=(8, 16, 24, 32))
EFFICIENTFORMER = dict(
    backbone=dict(
        type='EfficientFormer',
        arch=dict(
            layers=[1, 1, 1, 2], embed_dims=[8, 16, 24, 32], downsamples=[False, True, True, True], vit_num=1
        ),
        drop_path_rate=0,
    ),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='EfficientFormerClsHead', num_classes=K, in_channels=32),
)
DEIT = dict(
    backbone=dict(type='DistilledVisionTransformer', arch=ARCH, img_size=32, patch_size=8),
    head=dict(type='DeiTClsHead', num_classes=K, in_channels=32),
)
HEADS = dict(levit=LEVIT, efficientformer=EFFICIENTFORMER, deit=DEIT)
SIDES = dict(levit=64, efficientformer=224, deit=32, repvit=32, v2=64)
PEERS = dict(
    levit=('levit_128s', dict(img_size=64)),
    efficientformer=('efficientformer_l1', dict(NARROW, drop_path_rate=0.0)),
    repvit=('repvit_m0_9', dict(embed_dim=(8, 16, 24, 32), depth=(1, 1, 2, 1))),
    v2=('efficientformerv2_s0', dict(img_size=64, depths=(1, 1, 2, 2), drop_path_rate=0.0)),
)


def classifier(name, teacher=TEACHER, loss=LOSS, **kwargs):
    """An ImageClassifier's config, with nothing but a teacher and its loss added."""
    cfg = copy.deepcopy(HEADS[name])
    cfg['head']['loss'] = loss
    mean = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    return dict(type='DistilledClassifier', **cfg, teacher=teacher, data_preprocessor=mean, **kwargs)


def timm_classifier(name, teacher=TEACHER, loss=LOSS, **kwargs):
    model_name, options = PEERS[name]
    cfg = dict(type='DistilledTimmClassifier', model_name=model_name, num_classes=K, **options)
    mean = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    return dict(cfg, teacher=teacher, loss=loss, data_preprocessor=mean, **kwargs)


def peer(name):
    model_name, options = PEERS[name]
    return timm.create_model(model_name, num_classes=K, **options)


def drawn(model):
    """Weights and statistics of which each matters."""
    generator = torch.Generator().manual_seed(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator).mul(0.1)
            scale = name.endswith('running_var') or name.endswith('weight') and value.ndim == 1
            value.copy_(noise.abs() + 1 if scale else noise)
    return model


def blocks(names):
    """The names in each block, with the part of them that mmpretrain and timm share."""
    places: dict = {}
    for name in names:
        found = re.match(r'(backbone\.network\.\d+\.\d+|stages\.\d+\.(?:blocks\.\d+|\w+))\.(.*)', name)
        block, rest = found.groups() if found else ('', name)
        places.setdefault(block, {})[re.sub(r'^(ls\d)\.\w+$', r'\1', rest)] = name
    return list(places.values())


def to_timm(name, model, other):
    """The weights of mmpretrain's model under timm's names."""
    own = {k: v for k, v in model.state_dict().items() if 'bias_idxs' not in k}
    names = [k for k in other.state_dict() if 'bias_idxs' not in k]
    if name == 'levit':  # the same parts in the same order
        return dict(zip(names, own.values(), strict=True))
    result = {}
    for mine, timms in zip(blocks(own), blocks(names), strict=True):
        if mine.keys() != timms.keys():  # the stem, a downsampling, the heads: in the same order
            timms = dict(zip(mine, timms.values(), strict=True))
        result.update((timms[rest], own[key]) for rest, key in mine.items())
    return result


def with_timms_task(model, student, mode):
    """Ours and timm's task, in double precision, with one teacher."""
    model.teacher.build()
    drawn(model.teacher.model)
    task = TokenDistillationTask(
        student,
        InSinglePrecision(model.teacher.model.model),
        criterion=nn.CrossEntropyLoss(),
        distill_type=mode,
        task_loss_weight=0.5,
        temperature=3.0 if mode == 'soft' else 1.0,
        verbose=False,
    )
    # A bare module as the teacher has no mean and std for the task to use.
    task.teacher.normalize_input = lambda images, mean, std: images
    model.double()
    student.double()
    return model.train(), task.train()


def loss_of(mode):
    options = dict(tau=3.0, soft_reduction='batchmean') if mode == 'soft' else {}
    # mmpretrain's label smoothing is of single precision.
    return dict(LOSS, mode=mode, base_loss=dict(type='CrossEntropyLoss'), **options)


def compare(model, task, side, renamed):
    """Losses and gradients of a batch; ``renamed`` puts a dict of ours under timm's names."""
    images, labels = torch.randn(3, 3, side, side).double(), torch.arange(3)
    losses = model.loss(images, [DataSample().set_gt_label(int(i)) for i in labels])
    expected = task(images, labels)
    torch.testing.assert_close(losses['loss_cls'], expected['task_loss'] / 2)
    torch.testing.assert_close(losses['loss_distill'], expected['distill_loss'] / 2)
    model.parse_losses(losses)[0].backward()
    expected['loss'].backward()
    got = renamed({name: p.grad for name, p in model.named_parameters()})
    grads = {name: p.grad for name, p in task.trainable_module.named_parameters()}
    assert got.keys() == grads.keys() and all(g is not None for g in grads.values())
    for name, grad in grads.items():
        torch.testing.assert_close(got[name], grad, msg=lambda text, name=name: f'{name}: {text}')


@pytest.mark.parametrize('mode', ['hard', 'soft'])
@pytest.mark.parametrize('name', ['levit', 'efficientformer'])
def test_mmpretrains_heads_train_as_timms_models(name, mode):
    model = drawn(build(classifier(name, loss=loss_of(mode))))
    student = peer(name)
    keys = to_timm(name, model, student)
    student.load_state_dict(keys, strict=False)
    own = {v.data_ptr(): k for k, v in model.state_dict().items() if v.numel() and 'bias_idxs' not in k}
    names = {own[v.data_ptr()]: k for k, v in keys.items()}
    model, task = with_timms_task(model, student, mode)
    logits = model(torch.ones(2, 3, SIDES[name], SIDES[name]).double())
    expected = student(torch.ones(2, 3, SIDES[name], SIDES[name]).double())
    torch.testing.assert_close(logits, expected)
    compare(model, task, SIDES[name], lambda grads: {names[k]: v for k, v in grads.items()})


@pytest.mark.parametrize('mode', ['hard', 'soft'])
@pytest.mark.parametrize('name', ['levit', 'efficientformer', 'repvit', 'v2'])
def test_timms_students_train_as_by_timms_task(name, mode):
    model = drawn(build(timm_classifier(name, loss=loss_of(mode))))
    student = peer(name)
    weights = {k.removeprefix('model.'): v for k, v in model.state_dict().items()}
    student.load_state_dict(weights)  # timm's own names
    model.load_state_dict(weights)  # which ours takes too
    model, task = with_timms_task(model, student, mode)
    compare(model, task, SIDES[name], lambda grads: {k.removeprefix('model.'): v for k, v in grads.items()})


@pytest.mark.parametrize('mode', ['hard', 'soft'])
def test_a_student_with_one_head_trains_by_the_formula(mode):
    """FastViT: arXiv 2012.12877, section 4, with the teacher on the class logits."""
    options = dict(layers=(1, 1, 1, 1), drop_path_rate=0.0)
    mean = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    cfg = dict(type='DistilledTimmClassifier', model_name='fastvit_t8', num_classes=K, **options)
    loss = dict(loss_of(mode), distill_on='cls', alpha=0.3)
    model = drawn(build(dict(cfg, teacher=TEACHER, loss=loss, data_preprocessor=mean)))
    model.teacher.build()
    teacher = InSinglePrecision(drawn(model.teacher.model).model)
    twin = timm.create_model('fastvit_t8', num_classes=K, **options)
    twin.load_state_dict({k.removeprefix('model.'): v for k, v in model.state_dict().items()})
    model.double().train(), twin.double().train()
    images, labels = torch.randn(3, 3, 64, 64).double(), torch.arange(3)
    logits, answer = twin(images), teacher(images).double()
    expected = dict(loss_cls=0.7 * nn.functional.cross_entropy(logits, labels))
    if mode == 'hard':
        distilled = nn.functional.cross_entropy(logits, answer.argmax(1))
    else:  # in batchmean, times the square of the temperature
        p, q = (answer / 3).log_softmax(1), (logits / 3).log_softmax(1)
        distilled = 9 * (p.exp() * (p - q)).sum(1).mean()
    expected['loss_distill'] = 0.3 * distilled
    losses = model.loss(images, [DataSample().set_gt_label(int(i)) for i in labels])
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)
    model.parse_losses(losses)[0].backward()
    sum(expected.values()).backward()
    for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=lambda text, name=name: f'{name}: {text}')


def both(name, model, images):
    """Both logits by the parts of the head, one after the other."""
    feats = model.extract_feat(images)
    if name == 'deit':
        cls, dist = feats[-1]
        return model.head.layers.head(cls), model.head.layers.head_dist(dist)
    second = model.head.head_dist if name == 'levit' else model.head.dist_head
    return model.head.head(feats[-1]), second(feats[-1])


@pytest.mark.parametrize('name', HEADS)
def test_each_head_is_evaluated_as_its_prediction_says(name):
    images = torch.randn(2, 3, SIDES[name], SIDES[name])
    plain = drawn(build(dict(HEADS[name], type='ImageClassifier'))).eval()
    cls, dist = both(name, plain, images)
    readings = dict(
        mean=((cls + dist) / 2).softmax(1),
        cls=cls.softmax(1),
        dist=dist.softmax(1),
        mean_softmax=(cls.softmax(1) + dist.softmax(1)) / 2,
    )
    for prediction, expected in readings.items():
        model = build(classifier(name, teacher=None, prediction=prediction))
        model.load_state_dict(plain.state_dict())  # strictly: the same names
        torch.testing.assert_close(model.eval()(images).softmax(1), expected)
        scores = torch.stack([sample.pred_score for sample in model.predict(images)])
        torch.testing.assert_close(scores, expected)
    assert torch.equal(plain(images), build_like(name, plain)(images))


def build_like(name, plain):
    """With no prediction said, the logits are those of mmpretrain's classifier."""
    model = build(classifier(name, teacher=None))
    model.load_state_dict(plain.state_dict())
    return model.eval()


@pytest.mark.parametrize('loss', [dict(LOSS, mode='none'), dict(LOSS, distill_on='cls')])
@pytest.mark.parametrize('make, name', [(classifier, n) for n in HEADS] + [(timm_classifier, 'repvit')])
def test_a_second_head_that_is_not_trained_is_frozen(make, name, loss):
    model = build(make(name, loss=loss)).train()
    losses = step(model, make_batch(side=SIDES[name]))
    assert ('loss_distill' in losses) == (loss.get('mode') != 'none')
    model.parse_losses(losses)[0].backward()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all('dist' in n and 'head' in n for n in frozen)
    assert {n for n, p in model.named_parameters() if p.grad is None} == frozen


@pytest.mark.parametrize('make, name', [(classifier, n) for n in HEADS] + [(timm_classifier, 'repvit')])
def test_another_loss_trains_the_mean_by_the_labels(make, name):
    model = build(make(name, teacher=None, loss=dict(type='CrossEntropyLoss'))).train()
    batch = make_batch(side=SIDES[name])
    torch.manual_seed(0)
    losses = step(model, batch)
    torch.manual_seed(0)
    cls, dist = model(model.data_preprocessor(batch, training=True)['inputs'])
    expected = nn.functional.cross_entropy((cls + dist) / 2, torch.arange(4))
    torch.testing.assert_close(losses, dict(loss=expected))


@pytest.mark.parametrize('make, name', [(classifier, 'levit'), (timm_classifier, 'levit')])
def test_a_training_with_a_moving_average_goes_on(make, name, tmp_path):
    teacher = dict(TEACHER, data_preprocessor=dict(mean=[0.0] * 3, std=[1.0] * 3))
    torch.save(build(teacher).state_dict(), tmp_path / 'teacher.pth')
    model = make(name, teacher=dict(teacher, checkpoint=str(tmp_path / 'teacher.pth')))
    if make is timm_classifier:
        model.update(img_size=32, embed_dim=(16, 24, 32), num_heads=(1, 1, 2), key_dim=8, depth=(1, 1, 1))
    else:
        widths = dict(embed_dims=[16, 24, 32], num_heads=[1, 1, 2], depths=[1, 1, 1], key_dims=[8, 8, 8])
        model['backbone'].update(type='TrainableLeViT', arch=widths, img_size=32)
        model['head']['in_channels'] = 32
    kwargs = dict(
        train_dataloader=dict(
            dataset=dict(type='Noise'),
            batch_size=4,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        custom_hooks=[dict(type='EMAHook', momentum=0.1)],
        randomness=dict(seed=0),
        default_hooks=dict(filled=dict(type='FilledModelHook'), seed=dict(type='SeedHook')),
    )

    def run(folder, epochs, **more):
        (tmp_path / folder).mkdir(exist_ok=True)
        runner = make_runner(
            model, tmp_path / folder, scores=(1.0,) * epochs, **copy.deepcopy(kwargs), **more
        )
        runner.train()
        return runner

    whole = run('whole', 2)
    run('cut', 1)
    resumed = run('cut', 2, resume=True)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[key], value), key
    averaged = [
        next(h for h in r.hooks if type(h).__name__ == 'EMAHook').ema_model.state_dict()
        for r in (whole, resumed)
    ]
    assert averaged[0].keys() == averaged[1].keys()
    for key, value in averaged[0].items():
        assert torch.equal(averaged[1][key], value), key


class MyHead(ClsHead):
    """Of a user; what it calls its parts says nothing."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.prediction, self.b = nn.Linear(384, K), nn.Linear(384, K)

    def pre_logits(self, feats):
        """The last features."""
        return feats[-1]


def test_anyone_makes_a_head_known():
    head = MyHead()
    assert classifiers(head) is None
    classifiers.register(MyHead, lambda head: Classifiers(head.prediction, head.b))
    assert classifiers(head) == (head.prediction, head.b, 1, False)
    cfg = classifier('levit', prediction='dist')
    cfg['head'] = dict(type=MyHead, loss=LOSS)
    model = build(cfg)
    assert {'loss_cls', 'loss_distill'} < step(model.train(), make_batch(side=64)).keys()
    images = torch.randn(1, 3, 64, 64)
    feats = model.eval().extract_feat(images)
    assert torch.equal(model(images), model.head.b(feats[-1])) and model.prediction == 'dist'


def test_the_prediction_is_that_of_the_head():
    """Where a head reads its classifiers by itself; and so says the warning of one that is not trained."""
    tokens = dict(
        type='DistilledClassifier',
        backbone=dict(type='DeiT', arch=ARCH, img_size=32, patch_size=8, distilled=True),
        neck=dict(type='DistillationTokenNeck'),
    )
    head = dict(type='DeiTDualHead', num_classes=K, in_channels=32, loss=dict(LOSS, mode='none'))
    model = build(dict(tokens, head=dict(head, prediction='cls')))
    assert model.prediction == two_heads(model).prediction == 'cls'
    model.prediction = 'dist'
    assert model.head.prediction == two_heads(model).prediction == 'dist'
    assert build(dict(tokens, head=head, prediction='cls')).head.prediction == 'cls'


@pytest.mark.parametrize('by_itself, option', [(True, 'model.head.prediction'), (False, 'model.prediction')])
def test_an_untrained_head_names_the_option(by_itself, option, monkeypatch):
    said = []
    monkeypatch.setattr(of_logits, 'print_log', lambda text, **kwargs: said.append(text))
    cfg = classifier('deit', teacher=None, loss=dict(LOSS, mode='none'))
    if by_itself:
        cfg['head']['type'] = 'DeiTDualHead'
    build(cfg)
    (text,) = said
    assert f"evaluate with {option}='cls'" in text


def test_a_head_that_was_registered_wrongly():
    head = MyHead()
    classifiers.register(MyHead, lambda head: Classifiers(head.prediction, head.b, tokens=2))
    with pytest.raises(ValueError, match=r'MyHead.pre_logits gives 1 feature.*`Classifiers\(tokens=2\)`'):
        dual_logits(head, (torch.randn(2, 4),))


FAMILIES = dict(
    deit_tiny_distilled_patch16_224=dict(img_size=32),
    pit_ti_distilled_224=dict(img_size=64),
    efficientformerv2_s0=dict(img_size=64),
    swiftformer_xs={},
    efficientvim_m1_dist={},
    iformer_t=dict(distillation=True),
)


@pytest.mark.parametrize('name', FAMILIES)
def test_each_family_of_timm_gives_both_logits(name):
    options = dict(model_name=name, num_classes=K, **FAMILIES[name])
    loss = dict(LOSS, mode='none')
    model = build(dict(type='DistilledTimmClassifier', prediction='dist', loss=loss, **options))
    images = torch.randn(2, 3, 64, 64) if FAMILIES[name].get('img_size') != 32 else torch.randn(2, 3, 32, 32)
    cls, dist = model.eval().dual_logits(images)
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model.model(images), (cls + dist) / 2)  # timm's own
    assert torch.equal(model(images), dist) and not torch.equal(cls, dist)
    losses = model.train().loss(images, [DataSample().set_gt_label(i) for i in range(2)])
    losses['loss_cls'].backward()
    # DDP would wait for a parameter that the loss does not reach.
    assert all((p.grad is None) != p.requires_grad for p in model.parameters())


def test_a_compiled_student_of_timm():
    cfg = timm_classifier('repvit', teacher=None, loss=dict(LOSS, mode='none'))
    model = build(dict(cfg, depth=(1, 1, 1, 1))).train()
    twin, batch = copy.deepcopy(model), make_batch()
    twin.forward = torch.compile(twin.forward, backend='eager')
    torch.testing.assert_close(step(twin, batch), step(model, batch))


@pytest.mark.parametrize(
    'make, name, change, message',
    [
        (classifier, 'levit', dict(prediction='max'), "prediction='max' is unknown"),
        (
            classifier,
            'deit',
            dict(neck=dict(type='DistillationTokenNeck')),
            'leave the DistillationTokenNeck',
        ),
        (
            classifier,
            'deit',
            dict(backbone=dict(type='DeiT', arch=ARCH)),
            'DeiTClsHead needs a distillation token',
        ),
        (timm_classifier, 'levit', dict(prediction='max'), "prediction='max' is unknown"),
        (
            timm_classifier,
            'levit',
            dict(loss=dict(type='CrossEntropyLoss')),
            'model.loss is CrossEntropyLoss',
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, name, change, message):
    with pytest.raises(ValueError, match=message):
        build({**make(name), **change})


@pytest.mark.parametrize('kind', ['LeViTClsHead', 'EfficientFormerClsHead'])
def test_a_head_with_one_classifier_is_refused(kind):
    cfg = dict(LEVIT, type='DistilledClassifier', teacher=TEACHER)
    head = dict(type=kind, num_classes=K, in_channels=384, distillation=False)
    cfg['head'] = dict(head, loss=LOSS)
    message = f"the head is {kind} with one.*set `model.head.distillation=True`.*distill_on='cls'"
    with pytest.raises(ValueError, match=message):
        build(cfg)
    cfg.update(head=dict(head, loss=dict(LOSS, distill_on='cls')), prediction='dist')
    with pytest.raises(ValueError, match=f"prediction='dist' chooses.*{kind} has but one"):
        build(cfg)
    cfg.pop('prediction')
    assert 'loss_distill' in step(build(cfg), make_batch(side=64))


@pytest.mark.parametrize(
    'name, options, given',
    [('resnet10t', {}, ''), ('repvit_m0_9', dict(distillation=False), ' with distillation=False')],
)
def test_a_model_of_timm_with_one_head(name, options, given):
    cfg = dict(type='DistilledTimmClassifier', model_name=name, num_classes=K, teacher=TEACHER, **options)
    with pytest.raises(
        ValueError, match=f"distill_on='dist'. needs a distillation head, and {name} of timm has none{given}:"
    ):
        build(cfg)
    cfg['loss'] = dict(LOSS, distill_on='cls')
    with pytest.raises(ValueError, match=f"prediction='cls' needs a distillation head, and {name}"):
        build(dict(cfg, prediction='cls'))
    assert 'loss_distill' in step(build(cfg), make_batch())


@pytest.mark.parametrize('change', [dict(num_classes=0), dict(features_only=True)])
def test_a_model_of_timm_without_logits_is_refused(change):
    with pytest.raises(ValueError, match='repvit_m0_9 gives features, no logits: leave `features_only` out'):
        build({**timm_classifier('repvit'), **change})


@pytest.mark.parametrize(
    'title, student', [('LeViT of mmpretrain', 'LeViT'), ('Students of timm', 'SwiftFormer')]
)
def test_the_configs_in_the_docs(title, student, tmp_path):
    text = (Path(__file__).parents[2] / 'docs/students.md').read_text().split(f'## {title}\n')[1]
    (tmp_path / 'config.py').write_text(text.split('```python\n')[1].split('```')[0])
    cfg = Config.fromfile(str(tmp_path / 'config.py'))
    cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    model = build(cfg.model)
    assert student in str(type(getattr(model, 'backbone', None) or model.model))
    if student == 'LeViT':  # mmpretrain's default_hooks stay
        assert cfg.default_hooks.filled_model.type == 'FilledModelHook' and 'checkpoint' in cfg.default_hooks
    cfg.optim_wrapper.pop('type', None)  # mixed precision needs a GPU
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.clip_grad_kwargs['clip_factor'] in (0.01, 0.02)
    assert not next(g for g in wrapper.param_groups if g['weight_decay'] == 0)['params'][0].ndim > 2


def test_weights_that_timm_has_loaded_stay(tmp_path):
    """mmengine would have timm's models draw them anew: of a teacher, and of a student."""
    name = 'levit_128s'
    torch.save(timm.create_model(name, num_classes=K).state_dict(), tmp_path / 'timm.pth')
    given = torch.load(tmp_path / 'timm.pth')
    loaded = dict(model_name=name, num_classes=K, checkpoint_path=str(tmp_path / 'timm.pth'))
    student = build(dict(type='DistilledTimmClassifier', **loaded))
    student.init_weights()
    teacher = Teacher(dict(type='TimmClassifier', **loaded), student.data_preprocessor)
    teacher.build()
    for model in (student.model, teacher.model.model):
        assert all(torch.equal(value, given[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize('by_mmengine', [True, False])
@pytest.mark.parametrize('name', ['levit', 'efficientformer'])
def test_loaded_weights_count_at_once_in_evaluation(name, by_mmengine, tmp_path):
    """timm's models keep their attention biases for it, and mmengine's loader calls no load_state_dict."""
    first, second = (build(timm_classifier(name, teacher=None, loss=dict(LOSS, mode='none'))) for _ in 'ab')
    for module in second.modules():
        if hasattr(module, 'attention_biases'):
            nn.init.normal_(module.attention_biases, std=5.0)
    images = torch.rand(1, 3, SIDES[name], SIDES[name])
    torch.save(dict(state_dict=second.state_dict()), tmp_path / 'a.pth')
    with torch.no_grad():
        first.eval()(images)
        if by_mmengine:
            load_checkpoint(first, str(tmp_path / 'a.pth'), strict=True)
        else:
            first.load_state_dict(second.state_dict())
        assert torch.equal(first(images), second.eval()(images))


def test_a_recipe_may_end_the_distillation():
    """By mmpretrain's SwitchRecipeHook."""
    model = build(
        dict(
            type='DistilledTimmClassifier',
            model_name='resnet10t',
            num_classes=K,
            teacher=TEACHER,
            loss=dict(type='DistillationLoss', distill_on='cls'),
        )
    )
    model.loss_module = build(dict(type='CrossEntropyLoss'))
    model.check_teacher()
    assert model.answer(torch.rand(1, 3, 32, 32)) == {}
