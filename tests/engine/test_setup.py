"""A training whose parts do not fit, or that would learn nothing, does not start."""

import copy
import re

import pytest
import torch
from conftest import build, distilled, make_runner, teacher_cfg
from students import EFFICIENTFORMER, LEVIT, TIMM_LEVIT
from trainings import PIPELINE, training, unique_name

pytestmark = pytest.mark.usefixtures('quick')
HOOKS = dict(setup=dict(type='SetupHook'), finite_loss=dict(type='FiniteLossHook'))


def dots(folder, model=None, **kwargs):
    """A training of 20 images of 5 classes, 32 x 32."""
    model = model or distilled(teacher=None, mode='none')
    kwargs.setdefault('default_hooks', HOOKS)
    return training(model, folder / 'run', **kwargs)


def refused(folder, message, model=None, **kwargs):
    runner = dots(folder, model, **kwargs)
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    with pytest.raises(ValueError, match=f'Training does not start:\n(.*\n)*- {message}'):
        runner.train()
    assert runner.iter == 0
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_batches_of_labels_need_who_makes_samples_of_them(tmp_path):
    loader = dict(
        dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE),
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='labels_collate'),
    )
    refused(tmp_path, 'labels_collate is for DeiTDataPreprocessor.* a ClsData.*', train_dataloader=loader)
    model = distilled(teacher=None, mode='none')
    model['data_preprocessor']['type'] = 'DeiTDataPreprocessor'
    dots(tmp_path, model, train_dataloader=loader).train()


def test_what_the_device_is_left_with_needs_whole_batches(tmp_path):
    """`Dots` fills none."""
    load = dict(type='LoadRandomResizedCrop', scale=32, on_device='resize')
    loader = dict(
        dataset=dict(type='Dots', ann_file='', pipeline=[*PIPELINE[:-1], load, PIPELINE[-1]]),
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='labels_collate'),
    )
    refused(tmp_path, "on_device='resize' needs .*, or on_device=None", train_dataloader=loader)


def test_what_fits_is_trained_and_said(tmp_path):
    runner = dots(tmp_path, distilled(teacher=teacher_cfg()))
    runner.train()
    (log,) = (tmp_path / 'run').glob('*/*.log')
    log = log.read_text()
    number = sum(p.numel() for p in runner.model.parameters()) / 1e6
    for line in (
        f'Model: DistilledClassifier with DeiT, {number:.2f}M parameters',
        'Data: 20 images to train, 4 to validate, 5 classes (a, b, c, d, e)',
        'Teacher: regnety_002, weights from its config; hard distillation',
        'Training: 4 epochs of 5 iterations, AdamW, seed',
    ):
        assert f'INFO - {line}' in log
    assert log.index('Training: ') < log.index('Epoch(train)')


def test_classes_of_the_model(tmp_path):
    model = distilled(teacher=None, mode='none')
    model['head']['num_classes'] = 3
    refused(
        tmp_path,
        r'the data have 5 classes \(train_dataloader: a, b, c, d, e\), the model 3: set '
        '`model.head.num_classes=5`, and `data_preprocessor.num_classes` likewise',
        model,
    )


def test_classes_of_a_timm_model(tmp_path):
    refused(tmp_path, r'.*the model 7: set `model.num_classes=5`', teacher_cfg(num_classes=7))


def test_labels_without_names(tmp_path):
    model = distilled(teacher=None, mode='none')
    model['head']['num_classes'] = 3
    loader = dict(
        dataset=dict(type='Numbered', ann_file=''),
        batch_size=4,
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    refused(
        tmp_path,
        r'train_dataloader has the label 4, the model 3 classes: set `model.head.num_classes=5`',
        model,
        train_dataloader=loader,
    )


def test_classes_of_the_preprocessor(tmp_path):
    model = distilled(teacher=None, mode='none', train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
    model['data_preprocessor']['num_classes'] = 9
    refused(
        tmp_path,
        'the data_preprocessor has 9 classes, the model 5: set `data_preprocessor.num_classes=5`',
        model,
    )


def test_classes_of_the_teacher(tmp_path):
    runner = dots(tmp_path, distilled(teacher=teacher_cfg(num_classes=7)))
    with pytest.raises(ValueError, match='The student has 5 classes and the teacher 7'):
        runner.train()
    assert runner.model.teacher.model is None  # nobody built it


def test_top_k_above_the_classes(tmp_path):
    model = distilled(teacher=None, mode='none')
    refused(
        tmp_path,
        r'top-7 is asked for, of 5 classes: set `val_evaluator.topk="\(1,\)"`',
        model,
        val_evaluator=dict(type='Accuracy', topk=(1, 7)),
    )


def test_the_width_of_the_head(tmp_path):
    model = distilled(teacher=None, mode='none')
    model['head']['in_channels'] = 48
    refused(
        tmp_path, 'the backbone gives 32 channels, the head takes 48: set `model.head.in_channels=32`', model
    )


def test_the_channels_of_an_image(tmp_path):
    model = distilled(teacher=None, mode='none')
    model['backbone']['in_channels'] = 1
    refused(
        tmp_path, 'an image has 3 channels, the backbone takes 1: set `model.backbone.in_channels=3`', model
    )


def test_the_size_of_an_image(tmp_path):
    model = distilled(teacher=None, mode='none')
    model['backbone']['img_size'] = 48
    message = r'an image is \(32, 32\) .*are of \(48, 48\): set `model.backbone.img_size` and the crop'
    refused(tmp_path, message, model)


@pytest.mark.parametrize(
    'model, message',
    [
        (TIMM_LEVIT, r'the model takes \(64, 64\): set `model.img_size` and the crop'),
        (LEVIT, r'the model takes \(64, 64\): set `model.backbone.img_size` and the crop'),
        (EFFICIENTFORMER, r'the model takes \(224, 224\): set the crop'),
    ],
)
def test_the_size_of_an_image_of_other_students(model, message, tmp_path):
    model = copy.deepcopy(model)
    model.get('head', model)['loss'] = dict(type='DistillationLoss', mode='none')
    refused(tmp_path, r'an image is \(32, 32\) .*' + message, model)


def test_an_accumulation_longer_than_an_epoch(tmp_path):
    """Of 11 iterations with 64 accumulated nothing was learnt, and nobody said so."""
    refused(
        tmp_path,
        'gradients of 16 iterations are accumulated and an epoch has 5.*set '
        '`default_hooks.global_batch.batch_size` to 20 or less',
        default_hooks=dict(HOOKS, batch=dict(type='GlobalBatchHook', batch_size=64)),
    )


@pytest.mark.parametrize(
    'schedule, message',
    [
        (
            dict(type='DeiTLR', warmup_epochs=4),
            'warm-up of 4 epochs .* of 4, .*warmup_epochs',
        ),
        (
            dict(type='LinearLR', start_factor=1e-3, by_epoch=True, end=9, convert_to_iter_based=True),
            'warm-up of 45 iterations .* of 20, .*param_scheduler.0.end',
        ),
    ],
)
def test_a_warm_up_as_long_as_the_training(tmp_path, schedule, message):
    refused(tmp_path, f'the {message}', param_scheduler=[schedule])


def test_nothing_to_train(tmp_path):
    runner = dots(tmp_path)
    runner.model.requires_grad_(False)
    with pytest.raises(ValueError, match='All parameters are frozen'):
        runner.train()


def test_all_problems_are_named_at_once(tmp_path):
    model = distilled(teacher=None, mode='none')
    model['head'].update(num_classes=3, in_channels=48)
    runner = dots(tmp_path, model)
    with pytest.raises(ValueError) as caught:
        runner.train()
    assert re.search(r'classes(.*\n)*.*channels', str(caught.value))


def test_the_first_image_draws_nothing(tmp_path):
    """A training with the hook is that without."""
    weights = []
    for hooks in ({}, HOOKS):
        torch.manual_seed(3)
        runner = training(
            distilled(teacher=None, mode='none'),
            tmp_path / 'run',
            seed_hook=False,
            default_hooks=hooks,
            randomness=dict(seed=0),
            experiment_name=unique_name(),
        )
        runner.train()
        weights.append(runner.model.state_dict())
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


def test_a_test_is_not_asked(tmp_path):
    """A distilled variant is evaluated with any number of classes."""
    cfg = distilled(teacher=teacher_cfg(num_classes=7))
    runner = make_runner(
        cfg,
        tmp_path,
        default_hooks=HOOKS,
        train_dataloader=None,
        train_cfg=None,
        optim_wrapper=None,
    )
    runner.val()
    assert build(cfg).teacher.num_classes == 7


def test_a_batch_larger_than_the_data(tmp_path):
    loader = dict(
        dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE),
        batch_size=21,
        drop_last=True,
        sampler=dict(type='DefaultSampler', shuffle=True),
    )
    message = 'a batch of 21 is more than the 20 images.*`train_dataloader.batch_size`'
    refused(tmp_path, message, train_dataloader=loader)


def test_random_weights_and_no_teacher_are_said(tmp_path):
    dots(tmp_path).train()
    (log,) = (tmp_path / 'run').glob('*/*.log')
    for line in (
        'No teacher: the class head alone learns the labels',
        'The weights to start from are random',
    ):
        assert f'INFO - {line}' in log.read_text()
    model = distilled(teacher=None, mode='none')
    model['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'run' / 'epoch_4.pth'))
    (tmp_path / 'again').mkdir()
    dots(tmp_path / 'again', model).train()
    (log,) = (tmp_path / 'again' / 'run').glob('*/*.log')
    assert 'are random' not in log.read_text()


@pytest.mark.parametrize(
    'options, learners',
    [
        (dict(distilled=True), 'both heads learn'),
        (dict(distilled=False), 'the head learns'),
    ],
)
def test_as_many_heads_learn_as_there_are(options, learners, tmp_path):
    """Of a student without a teacher."""
    loss = dict(type='CrossEntropyLoss')
    preprocessor = distilled(teacher=None, mode='none')['data_preprocessor']
    model = dict(TIMM_LEVIT, img_size=32, loss=loss, data_preprocessor=preprocessor, **options)
    dots(tmp_path, model).train()
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert f'INFO - No teacher: {learners} the labels' in log.read_text()
