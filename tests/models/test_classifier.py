import copy
import pickle

import pytest
import timm
import torch
from conftest import (
    ARCH,
    NUM_CLASSES,
    build,
    make_batch,
    make_runner,
    shuffle_weights,
    step,
    teacher_cfg,
)

PLAIN = dict(
    type='VisionTransformerClsHead',
    num_classes=NUM_CLASSES,
    in_channels=32,
    init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02),
)


def spy(model):
    """What student and teacher see and answer, filled at each step."""
    seen = {}
    model.teacher.build()
    model.backbone.register_forward_pre_hook(lambda m, args: seen.update(student=args[0]))

    def teacher_hook(module, args, kwargs, out):
        seen.update(teacher=args[0], answer=out, training=module.training)

    model.teacher.model.register_forward_hook(teacher_hook, with_kwargs=True)
    return seen


def test_teacher_sees_the_students_tensor_after_mixing(distilled_cfg):
    distilled_cfg['train_cfg'] = dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    )
    model = build(distilled_cfg).train()
    seen, batch = spy(model), make_batch()
    losses = step(model, batch)
    pixels = batch['inputs'].float()
    assert seen['teacher'] is seen['student']  # not even a copy
    assert not torch.allclose(seen['student'], (pixels - 120) / 60)  # mixed
    accuracies = {'cls_acc', 'dist_acc', 'teacher_acc', 'teacher_agreement'}
    assert set(losses) == {'loss_cls', 'loss_distill', *accuracies}


def test_losses_are_those_of_the_parts(distilled_cfg):
    model = build(distilled_cfg).eval()
    shuffle_weights(model)
    seen, batch = spy(model), make_batch(8)
    losses = step(model, batch)
    tokens = model.backbone(seen['student'])[-1]
    cls = model.head.layers.head(tokens[0])
    dist = model.head.layers.head_dist(tokens[1])
    labels = torch.arange(8) % NUM_CLASSES
    choice = seen['answer'].argmax(1)
    ce = torch.nn.functional.cross_entropy
    torch.testing.assert_close(losses['loss_cls'], ce(cls, labels, label_smoothing=0.1) / 2)
    torch.testing.assert_close(losses['loss_distill'], ce(dist, choice) / 2)
    agree = 100 * (choice == (cls + dist).argmax(1)).float().mean()
    assert losses['teacher_agreement'] == agree
    assert losses['teacher_acc'] == 100 * (choice == labels).float().mean()
    total, log = model.parse_losses(losses)
    torch.testing.assert_close(total, losses['loss_cls'] + losses['loss_distill'])


@pytest.mark.parametrize('to_rgb', [None, False, True])
def test_teacher_of_another_normalisation(distilled_cfg, to_rgb):
    mean, std = [10.0, 20.0, 30.0], [40.0, 50.0, 60.0]
    distilled_cfg['data_preprocessor'].update(mean=[100.0, 110.0, 120.0], std=[70.0, 80.0, 90.0])
    own = dict(mean=mean, std=std)
    distilled_cfg['teacher']['data_preprocessor'] = {
        **own,
        **({} if to_rgb is None else dict(to_rgb=to_rgb)),
    }
    distilled_cfg['data_preprocessor']['to_rgb'] = True
    model = build(distilled_cfg).train()
    seen, batch = spy(model), make_batch()
    step(model, batch)
    pixels = batch['inputs'].double()
    if to_rgb is not False:  # absent: as the student has it
        pixels = pixels.flip(1)
    expected = (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)
    torch.testing.assert_close(seen['teacher'].double(), expected, atol=1e-5, rtol=0)


def test_teacher_of_the_other_channel_order_alone(distilled_cfg):
    distilled_cfg['data_preprocessor'].update(mean=[100.0, 110.0, 120.0], std=[70.0, 80.0, 90.0], to_rgb=True)
    distilled_cfg['teacher']['data_preprocessor'] = dict(
        mean=[120.0, 110.0, 100.0], std=[90.0, 80.0, 70.0], to_rgb=False
    )
    model = build(distilled_cfg)
    seen, batch = spy(model), make_batch()
    step(model.train(), batch)
    assert model.teacher.scale is None
    assert torch.equal(seen['teacher'], seen['student'].flip(1))


def test_timm_teacher_brings_its_normalisation(distilled_cfg):
    distilled_cfg['data_preprocessor'].update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    distilled_cfg['teacher'].pop('data_preprocessor')
    model = build(distilled_cfg)
    model.teacher.build()
    assert model.teacher.scale is None  # timm's ImageNet default: the same
    distilled_cfg['teacher'] = dict(
        type='TimmClassifier',
        model_name='vit_tiny_patch16_224',
        num_classes=NUM_CLASSES,
        img_size=32,
    )
    model = build(distilled_cfg).train()  # mean and std 0.5
    seen, batch = spy(model), make_batch()
    step(model, batch)
    torch.testing.assert_close(seen['teacher'], batch['inputs'] / 127.5 - 1, atol=1e-5, rtol=0)


def test_teacher_stays_frozen(distilled_cfg):
    model = build(distilled_cfg).train()
    seen = spy(model)
    before = copy.deepcopy(model.teacher.model.state_dict())
    model.train()
    loss, _ = model.parse_losses(step(model, make_batch()))
    loss.backward()
    assert seen['training'] is False
    for name, value in model.teacher.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.model.parameters())
    assert all(p.grad is not None for p in model.parameters())


def test_teacher_runs_under_the_students_autocast(distilled_cfg):
    model = build(distilled_cfg).train()
    seen = spy(model)
    with torch.autocast('cpu', torch.bfloat16):
        losses = step(model, make_batch())
    assert seen['answer'].dtype is torch.bfloat16
    assert losses['loss_distill'].dtype is torch.float32
    step(model, make_batch())
    assert seen['answer'].dtype is torch.float32


def test_teacher_is_no_part_of_the_model(distilled_cfg):
    model = build(distilled_cfg)
    student = build({**distilled_cfg, 'teacher': None})
    names = list(student.state_dict())
    step(model.train(), make_batch())
    assert model.teacher.model is not None
    assert list(model.state_dict()) == names
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in student.named_parameters()]
    assert len(list(model.modules())) == len(list(student.modules()))
    # A copy, as for the moving average, and a pickle hold the config alone.
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.teacher.model is None
        assert twin.teacher.student_preprocessor is twin.data_preprocessor
        step(twin, make_batch())  # and a copy can be trained


def test_ema_copies_the_student_alone(distilled_cfg, tmp_path):
    runner = make_runner(distilled_cfg, tmp_path, scores=(1.0,), custom_hooks=[dict(type='EMAHook')])
    runner.train()
    model = runner.model
    assert model.teacher.model is not None
    (ema,) = (h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    assert ema.ema_model.module.teacher.model is None

    def tensors(module):
        return sum(p.numel() for p in module.parameters())

    assert tensors(ema.ema_model) == tensors(model)
    stored = torch.load(tmp_path / 'epoch_1.pth')
    names = set(build({**distilled_cfg, 'teacher': None}).state_dict())
    assert set(stored['state_dict']) == names
    assert set(stored['ema_state_dict']) == {'steps', *(f'module.{n}' for n in names)}
    optimized = sum(p.numel() for g in runner.optim_wrapper.param_groups for p in g['params'])
    assert optimized == tensors(model)


def test_prediction_needs_no_teacher(distilled_cfg):
    distilled_cfg['teacher']['checkpoint'] = 'nowhere/teacher.pth'
    model = build(distilled_cfg)
    model.init_weights()
    model.eval()
    batch = make_batch()
    predictions = model.test_step(copy.deepcopy(batch))
    assert len(predictions) == 4 and model.teacher.model is None
    model.forward(batch['inputs'].float(), mode='tensor')
    exported = torch.export.export(
        model,
        (torch.randn(2, 3, 32, 32),),
        dynamic_shapes=((dict([(0, torch.export.Dim('batch', max=64))]),)),
        strict=False,
    )  # mmcv's layers stop the strict one before torch 2.7
    assert not any('teacher' in n for n in exported.state_dict)
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(exported.module()(images), model(images))
    with pytest.raises(FileNotFoundError, match='nowhere/teacher.pth'):
        step(model.train(), batch)


def test_building_the_teacher_draws_no_random_number(distilled_cfg):
    model = build(distilled_cfg)
    state = torch.get_rng_state()
    model.teacher.build()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: s,
        lambda s: dict(model=s),
        lambda s: dict(state_dict=s),
        lambda s: dict(state_dict={f'module.{k}': v for k, v in s.items()}),
    ],
)
def test_timm_checkpoint(distilled_cfg, tmp_path, wrap):
    cfg = dict(teacher_cfg())
    kwargs = {k: v for k, v in cfg.items() if k not in ('type', 'data_preprocessor', 'model_name')}
    source = shuffle_weights(timm.create_model(cfg['model_name'], **kwargs))
    path = str(tmp_path / 'teacher.pth')
    torch.save(wrap(source.state_dict()), path)
    distilled_cfg['teacher']['checkpoint'] = path
    model = build(distilled_cfg)
    model.teacher.build()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.teacher(images), source.eval()(images))


def test_mmpretrain_checkpoint(distilled_cfg, tmp_path):
    cfg = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet_CIFAR', depth=18, base_channels=8, stem_channels=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=NUM_CLASSES, in_channels=64),
    )
    source = shuffle_weights(build(cfg))
    path = str(tmp_path / 'teacher.pth')
    torch.save(dict(state_dict=source.state_dict(), meta={}), path)
    distilled_cfg['teacher'] = dict(cfg, checkpoint=path)
    model = build(distilled_cfg)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.teacher(images), source.eval()(images))


@pytest.mark.parametrize(
    'spoil, message',
    [
        (lambda s: s.pop('head.fc.bias'), 'lacks 1 parameters.*head.fc.bias'),
        (lambda s: s.update(extra=torch.zeros(1)), 'holds 1 that.*extra'),
        (lambda s: s.update({'head.fc.bias': torch.zeros(9)}), 'size mismatch'),
    ],
)
def test_teacher_checkpoint_that_does_not_fit(distilled_cfg, tmp_path, spoil, message):
    model = build(distilled_cfg)
    model.teacher.build()
    state_dict = model.teacher.model.state_dict()
    spoil(state_dict)
    path = str(tmp_path / 'teacher.pth')
    torch.save(state_dict, path)
    distilled_cfg['teacher']['checkpoint'] = path
    with pytest.raises(ValueError, match=f'(?s)teacher.pth.*{message}'):
        step(build(distilled_cfg).train(), make_batch())


@pytest.mark.parametrize('mode, alpha, tau', [('hard', 0.5, 1.0), ('soft', 0.1, 3.0)])
def test_distillation_without_a_token(distilled_cfg, mode, alpha, tau):
    distilled_cfg['backbone'].pop('distilled')
    distilled_cfg.update(
        neck=None,
        head=dict(
            **PLAIN,
            loss=dict(type='DistillationLoss', mode=mode, alpha=alpha, tau=tau, distill_on='cls'),
        ),
    )
    model = build(distilled_cfg).train()
    model.init_weights()
    seen = spy(model)
    losses = step(model, make_batch())
    logits = model(seen['student'])
    expected = model.head.loss_module(logits, torch.arange(4), seen['answer'].clone())
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_mode_none_asks_no_teacher(distilled_cfg):
    distilled_cfg['head']['loss']['mode'] = 'none'
    model = build(distilled_cfg).train()
    losses = step(model, make_batch())
    assert set(losses) == {'loss_cls'} and model.teacher.model is None
    losses['loss_cls'].backward()
    idle = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert idle == {'head.layers.head_dist.weight', 'head.layers.head_dist.bias'}
    # DDP waits for the others alone, and nothing decays what is idle.
    assert all((p.grad is None) == (n in idle) for n, p in model.named_parameters())


def test_trains_without_any_distillation(distilled_cfg):
    distilled_cfg['backbone'].pop('distilled')
    distilled_cfg.update(neck=None, head=PLAIN, teacher=None)
    assert set(step(build(distilled_cfg), make_batch())) == {'loss'}


def test_a_teacher_of_other_classes_is_asked_in_training_alone(distilled_cfg):
    """Evaluation, prediction and export work with any number of classes."""
    distilled_cfg['teacher'] = teacher_cfg(num_classes=7)
    model, batch = build(distilled_cfg), make_batch()
    with pytest.raises(ValueError, match='student has 5 classes and the teacher 7'):
        step(model, batch)
    assert model.eval()(torch.rand(2, 3, 32, 32), mode='tensor').shape == (2, 5)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            dict(backbone=dict(type='DeiT', arch=ARCH)),
            'DistillationTokenNeck needs a distillation token.*distilled=True',
        ),
        (
            dict(backbone=dict(type='DeiT', arch=ARCH), neck=None),
            'DeiTDualHead needs a distillation token, but DeiT has 1',
        ),
        (
            dict(head=dict(PLAIN, loss=dict(type='DistillationLoss'))),
            'the head is VisionTransformerClsHead',
        ),
        (dict(head=PLAIN), 'head.loss is CrossEntropyLoss, which asks none'),
        (dict(teacher='regnety_160'), "config of a classifier.*'regnety_160'"),
    ],
)
def test_wrong_pairs_fail_at_build(distilled_cfg, change, message):
    distilled_cfg.update(change)
    with pytest.raises(ValueError, match=message):
        build(distilled_cfg)


@pytest.mark.parametrize(
    'teacher, message',
    [
        (None, "DistillationLoss.mode='hard'. needs a teacher"),
        (
            dict(type='TimmClassifier', model_name='resnet10t'),
            'The student has 5 classes and the teacher 1000',  # timm's own
        ),
        (dict(type='GlobalAveragePooling'), 'is not a classifier'),
        (dict(type='ImageClassifier', backbone=dict(type='DeiT', arch=ARCH)), 'gives no logits'),
    ],
)
def test_wrong_pairs_fail_at_the_first_step(distilled_cfg, teacher, message):
    distilled_cfg['teacher'] = teacher
    model = build(distilled_cfg).train()
    with pytest.raises(ValueError, match=message):
        step(model, make_batch())


def test_resume_with_a_moving_average(distilled_cfg, tmp_path):
    kwargs = dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)])
    make_runner(distilled_cfg, tmp_path, scores=(1.0,), **kwargs).train()
    runner = make_runner(distilled_cfg, tmp_path, scores=(1.0, 2.0), resume=True, **kwargs)
    runner.train()
    assert runner.epoch == 2
    stored = torch.load(tmp_path / 'epoch_2.pth')
    for name, value in runner.model.state_dict().items():
        averaged = stored['state_dict'][name]  # what mim test evaluates
        assert torch.equal(stored['ema_state_dict'][f'module.{name}'], value)
        assert not torch.equal(averaged, value) or 'bias' in name, name


def test_compiled_student(distilled_cfg):
    model = build(distilled_cfg).train()
    batch = make_batch()
    expected = step(model, batch)
    model.backbone = torch.compile(model.backbone, backend='eager')
    torch.testing.assert_close(step(model, batch), expected)
