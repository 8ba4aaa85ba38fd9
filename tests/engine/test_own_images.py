"""What follows from one's own images, and what is refused before anything is built."""

import os.path as osp
import shutil

import numpy as np
import pytest
import timm
import torch
from conftest import CONFIGS, build, teacher_cfg
from mmengine.config import Config
from mmpretrain.registry import RUNNERS
from mmpretrain.structures import DataSample
from PIL import Image

from deit_plugin.engine import own_images
from deit_plugin.engine.own_images import complete
from deit_plugin.models import DeiTIII
from deit_plugin.models.deit3 import default_patch_size

VARIANTS = sorted(path.stem for path in (CONFIGS / 'finetune').glob('deit*_folder.py'))


def fill(folder, counts):
    """A folder of small images for each class; the bytes of one serve for all."""
    image = folder / 'image.png'
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(image)
    content = image.read_bytes()
    image.unlink()
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f'{i}.png').write_bytes(content)


@pytest.fixture
def images(tmp_path):
    fill(tmp_path / 'mine' / 'train', dict(ant=30, bee=20, cat=14))
    fill(tmp_path / 'mine' / 'val', dict(ant=3, bee=2, cat=2))
    return tmp_path / 'mine'


def settings(name, root, **options):
    cfg = Config.fromfile(CONFIGS / 'finetune' / f'{name}.py')
    cfg.merge_from_dict({'data_root': str(root), **options})
    return cfg


def completed(name, root, **options):
    cfg = settings(name, root, **options)
    return cfg, complete(cfg)


@pytest.mark.parametrize('name', VARIANTS)
def test_every_variant_takes_classes_and_size_from_one_place(images, name):
    cfg, lines = completed(name, images)
    size = 384 if '384' in name else 224
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.model.backbone.img_size == cfg.image_size == size
    crop, pipeline = cfg.train_dataloader.dataset.pipeline[0], cfg.test_dataloader.dataset.pipeline
    assert crop.scale == size
    edge = size if 'deit3' in name else {224: 256, 384: 438}[size]
    assert [step.get('scale') or step.get('crop_size') for step in pipeline[1:3]] == [edge, size]
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    assert cfg.model.head.in_channels == DeiTIII.arch_zoo[cfg.model.backbone.arch]['embed_dims']
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert list(loader.dataset.metainfo.classes) == ['ant', 'bee', 'cat']
    assert 'teacher' not in cfg.model
    assert lines == [
        f'Own images in {images}: 64 to train (ant 30, bee 20, cat 14), 7 to validate',
        'From them follow 3 classes, top-1, a batch of 8 and a rate of 2.21e-05 for 63 epochs; images of '
        f'{size} x {size}',
    ]


def test_any_size_goes_everywhere(images):
    cfg, _ = completed('deit_tiny_distilled_folder', images, image_size=64)
    assert cfg.model.backbone.img_size == cfg.train_dataloader.dataset.pipeline[0].scale == 64
    assert [cfg.test_dataloader.dataset.pipeline[i] for i in (1, 2)][1].crop_size == 64
    assert cfg.val_dataloader.dataset.pipeline[1].scale == 73


def test_a_deit3_is_completed(images):
    cfg = settings('deit_small_folder', images, image_size=48)
    cfg.model.backbone = dict(type='DeiTIII', arch='medium')
    complete(cfg)
    assert cfg.model.head.in_channels == 512 and cfg.model.backbone.img_size == 48
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resize, crop = loader.dataset.pipeline[1:3]
        assert (resize.scale, crop.crop_size) == (48, 48)  # no border


@pytest.mark.parametrize('name', [name for name in VARIANTS if 'deit3' in name])
def test_a_deit3_starts_from_the_published_weights(name):
    """As timm names them."""
    size = name.split('_')[1]
    patch = default_patch_size(size)
    published = timm.get_pretrained_cfg(f'deit3_{size}_patch{patch}_224.fb_in22k_ft_in1k').url
    assert settings(name, 'mine').load_from == published


@pytest.mark.parametrize('kind, sizes', [('DeiT', 'base, small, tiny'), ('DeiTIII', 'huge, large')])
def test_the_size_of_the_model_is_checked_by_the_backbone(images, kind, sizes):
    options = {'model.backbone.type': kind}
    cfg, _ = completed('deit_tiny_folder', images, **options, **{'model.backbone.arch': 'Small'})
    assert cfg.model.head.in_channels == 384 and build(cfg.model.backbone).embed_dims == 384
    sizes = ".*'" + sizes.replace(', ', "', '")
    with pytest.raises(ValueError, match=f"arch='s' is unknown: choose one of {sizes}"):
        completed('deit_tiny_folder', images, **options, **{'model.backbone.arch': 's'})
    with pytest.raises(ValueError, match='lacks .*embed_dims'):
        completed(
            'deit_tiny_folder', images, **options, **{'model.backbone.arch': dict(_delete_=True, num_heads=2)}
        )


@pytest.mark.parametrize(
    'backbone, patch, sizes',
    [
        (dict(arch='small'), 16, '224 or 240'),
        (dict(arch='Huge'), 14, '224 or 238'),
        (dict(arch='small', patch_size=(8, 12)), 24, '216 or 240'),
        (dict(arch='huge', patch_cfg=dict(padding=0)), None, ''),
    ],
)
def test_patches_of_a_deit3_fill_the_image(images, backbone, patch, sizes):
    cfg = settings('deit3_small_folder', images, image_size=230)
    cfg.model.backbone = dict(type='DeiTIII', **backbone)
    if patch is None:  # the rest is cut off
        complete(cfg)
        assert cfg.model.backbone.img_size == 230
        return
    message = f'image_size=230 is not a multiple of the patches of {patch}: set {sizes}'
    with pytest.raises(ValueError, match=message):
        complete(cfg)


def test_the_model_of_a_completed_config_is_built_and_learns_both_heads(images):
    cfg, _ = completed('deit_tiny_distilled_folder', images, image_size=32)
    model = build(dict(cfg.model, data_preprocessor=dict(cfg.data_preprocessor)))
    assert type(model.head.loss_module).__name__ == 'LabelSmoothLoss'
    losses = model.head.loss((torch.rand(2, 192), torch.rand(2, 192)), target(2))
    losses['loss'].backward()
    for layer in (model.head.layers.head, model.head.layers.head_dist):
        assert layer.weight.grad.abs().sum() > 0


def target(number):
    return [DataSample().set_gt_label(i) for i in range(number)]


@pytest.mark.parametrize(
    'count, batch, rate, epochs',
    [
        # A tenth of the images, a power of two, 8 to 64; 5e-4 x batch / 512, below 64 by the square root.
        (30, 8, 6.25e-5 * (8 / 64) ** 0.5, 134),
        (640, 64, 6.25e-5, 50),
        (6400, 64, 6.25e-5, 30),
        (4, 4, 6.25e-5 * (4 / 64) ** 0.5, 500),
    ],
)
def test_batch_rate_and_epochs_follow_from_the_number_of_images(images, count, batch, rate, epochs):
    cfg = settings('deit_tiny_folder', images)
    assert own_images._complete_schedule(cfg, count) == (batch, pytest.approx(rate))
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.default_hooks.global_batch.batch_size == cfg.train_dataloader.batch_size == batch


@pytest.mark.parametrize('epochs, warmup', [(1, 0), (5, 0), (11, 0), (12, 2), (30, 5), (300, 5)])
def test_the_warm_up_follows_from_the_epochs(images, epochs, warmup):
    cfg, _ = completed('deit_tiny_folder', images, **{'train_cfg.max_epochs': epochs})
    assert cfg.param_scheduler[0].warmup_epochs == warmup


def test_from_random_weights_the_rate_is_higher(images):
    fine, _ = completed('deit_tiny_folder', images)
    random, _ = completed('deit_tiny_folder', images, load_from=None)
    assert random.optim_wrapper.optimizer.lr == pytest.approx(8 * fine.optim_wrapper.optimizer.lr)


def test_weights_of_the_backbone_are_weights_to_start_from(images):
    init = dict(type='Pretrained', checkpoint='a.pth')
    cfg, _ = completed('deit_tiny_folder', images, load_from=None, **{'model.backbone.init_cfg': init})
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(6.25e-5 * (8 / 64) ** 0.5)


@pytest.mark.usefixtures('quick')
def test_published_weights_that_cannot_be_loaded(images, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('timm.models.create_model', fail)
    cfg = settings('teacher_folder', images, work_dir=str(tmp_path / 'run'), teacher='resnet18')
    with pytest.raises(OSError, match=r'of resnet18 cannot be loaded \(no network\)\. .*`pretrained=False`'):
        RUNNERS.build(cfg)
    cfg.pretrained = False
    with pytest.raises(OSError, match='^no network$'):  # of another reason
        RUNNERS.build(cfg)


def test_what_is_set_stays(images):
    options = {
        'train_dataloader.batch_size': 5,
        'optim_wrapper.optimizer.lr': 0.5,
        'train_cfg.max_epochs': 7,
        'default_hooks.global_batch.batch_size': 10,
    }
    cfg, lines = completed('deit_tiny_folder', images, **options)
    assert cfg.train_dataloader.batch_size == 5 and cfg.default_hooks.global_batch.batch_size == 10
    assert cfg.optim_wrapper.optimizer.lr == 0.5 and cfg.train_cfg.max_epochs == 7
    assert 'a batch of 5 and a rate of 0.5 for 7 epochs' in lines[1]


def test_the_batch_is_divided_among_processes(images, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '4')
    cfg, lines = completed('deit_tiny_folder', images, launcher='pytorch')
    assert cfg.train_dataloader.batch_size == 2 and 'a batch of 8' in lines[1]


def test_top_5_from_six_classes_on(tmp_path):
    fill(tmp_path / 'mine', {f'c{i}': 5 for i in range(6)})
    cfg, lines = completed('deit_tiny_folder', tmp_path / 'mine')
    assert cfg.val_evaluator.topk == (1, 5) and 'top-5' in lines[1]
    assert lines[0].endswith(
        '24 to train (c0 4, c1 4, c2 4, c3 4, c4 4 and 1 more), 6 to validate (held out)'
    )


@pytest.mark.parametrize('name', ['val', 'valid', 'validation', 'test'])
def test_the_other_folder(images, name):
    (images / 'val').rename(images / name)
    cfg, _ = completed('deit_tiny_folder', images)
    assert cfg.val_dataloader.dataset.data_prefix == name


def test_a_part_is_held_out_where_there_is_no_other_folder(images):
    shutil.rmtree(images / 'val')
    _, lines = completed('deit_tiny_folder', images, val_fraction=0.5)
    assert lines[0].endswith('32 to train (ant 15, bee 10, cat 7), 32 to validate (held out)')


def test_lists(images):
    (images / 'train.csv').write_text('path,class\ntrain/ant/0.png,B\ntrain/bee/0.png,A\n')
    (images / 'val.txt').write_text('val/ant/0.png B\n')
    options = dict(train_list='train.csv', val_list='val.txt')
    cfg, lines = completed('deit_tiny_folder', images, **options)
    assert '2 to train (A 1, B 1), 1 to validate' in lines[0]
    cfg, lines = completed('deit_tiny_folder', images, classes=['B', 'A'], **options)
    assert cfg.val_dataloader.dataset.metainfo.classes == ['B', 'A']


@pytest.mark.parametrize(
    'options, error, message',
    [
        (dict(data_root='nowhere'), FileNotFoundError, r"data_root='nowhere' \(.*nowhere\) is not a folder"),
        (
            dict(image_size=50),
            ValueError,
            'image_size=50 is not a multiple of the patches of 16: set 48 or 64',
        ),
        (dict(imagesize=32), ValueError, 'imagesize is no setting: is image_size meant'),
        (dict(image_size='big'), ValueError, "image_size='big' must be a number of pixels"),
        (dict(val_fraction=1.5), ValueError, 'val_fraction=1.5 must be above 0 and below 1'),
        (dict(classes=['ant', 'bee']), ValueError, 'has the classes cat, which are none of the 2: ant, bee'),
        (dict(classes=['ant', 'bee', 'cat', 'eel']), ValueError, 'has no images to train of eel'),
        (dict(teacher='resnet05'), ValueError, "teacher='resnet05' is neither .* Close: resnet50"),
        (dict(teacher='resnet50'), ValueError, 'has no weights for these 3 classes: train it first'),
        (dict(teacher_checkpoint='nowhere.pth'), FileNotFoundError, 'nowhere.pth'),
    ],
)
def test_refused(images, options, error, message):
    if 'val_fraction' in options:
        (images / 'val').rename(images / 'other')
    with pytest.raises(error, match=message):
        completed('deit_tiny_distilled_folder', images, **options)


def test_a_single_class_teaches_nothing(tmp_path):
    fill(tmp_path / 'mine', dict(images=20))
    with pytest.raises(ValueError, match="has one class, 'images', so nothing could be learnt"):
        completed('deit_tiny_folder', tmp_path / 'mine')


def test_nothing_to_validate_with(tmp_path):
    fill(tmp_path / 'mine', dict(a=1, b=1))
    with pytest.raises(ValueError, match='has one image of each class: none can be held out'):
        completed('deit_tiny_folder', tmp_path / 'mine')


def test_a_plain_model_has_no_teacher(images):
    with pytest.raises(ValueError, match='A ImageClassifier has no teacher: take the config of a distilled'):
        completed('deit_tiny_folder', images, teacher='resnet18', teacher_checkpoint='x.pth')


@pytest.mark.parametrize(
    'teacher', [dict(checkpoint='mine.pth'), dict(type='TimmClassifier', model_name='x')]
)
def test_a_teacher_in_the_wrong_place_is_not_dropped(images, teacher):
    cfg = settings('deit_tiny_distilled_folder', images)
    cfg.model.teacher = teacher
    with pytest.raises(ValueError, match='model.teacher is not read here: set `teacher` to a name'):
        complete(cfg)


def test_a_teacher_to_train(images):
    cfg, _ = completed('teacher_folder', images, teacher='resnet18', pretrained=False)
    assert cfg.model.type == 'TimmClassifier' and cfg.model.num_classes == 3 and not cfg.model.pretrained
    # timm's own mean and std.
    np.testing.assert_allclose(cfg.data_preprocessor.mean, [123.675, 116.28, 103.53])
    completed_again = settings('teacher_folder', images, teacher='vit_tiny_patch16_384', pretrained=False)
    complete(completed_again)
    assert completed_again.model.img_size == 224  # of the images, not of its name


def test_a_teacher_of_the_hub_starts_from_its_published_weights(images):
    cfg, _ = completed('teacher_folder', images, teacher='resnet18_8xb32_in1k')
    assert cfg.model.type == 'ImageClassifier' and cfg.model.head.num_classes == 3
    assert osp.basename(cfg.load_from).startswith('resnet18_')
    assert 'topk' not in cfg.model.head
    cfg, _ = completed('teacher_folder', images, teacher='resnet18_8xb32_in1k', load_from='my.pth')
    assert cfg.load_from == 'my.pth'


def test_a_teacher_by_its_config(images, tmp_path):
    path = tmp_path / 'teacher.py'
    path.write_text(f'model = {teacher_cfg(num_classes=1000)!r}\n')
    cfg, _ = completed('teacher_folder', images, teacher=str(path))
    assert cfg.model.num_classes == 3 and cfg.data_preprocessor.mean == [120.0] * 3


def record(path, classes, **kwargs):
    """A checkpoint of a teacher, as mmengine writes it."""
    model = teacher_cfg(num_classes=3)
    weights = build(model).state_dict()
    text = Config(dict(model={**model, **kwargs})).pretty_text
    torch.save(dict(state_dict=weights, meta=dict(cfg=text, dataset_meta=dict(classes=classes))), path)
    return str(path)


def test_a_teacher_by_what_its_checkpoint_records(images, tmp_path):
    path = record(tmp_path / 'teacher.pth', ('ant', 'bee', 'cat'))
    cfg, _ = completed('deit_tiny_distilled_folder', images, teacher_checkpoint=path)
    assert cfg.model.teacher.checkpoint == path and cfg.model.teacher.model_name == 'regnety_002'
    assert cfg.model.head.loss.type == 'DistillationLoss'
    assert build(dict(cfg.model, data_preprocessor=dict(cfg.data_preprocessor))).teacher is not None


def test_a_teacher_of_other_classes(images, tmp_path):
    path = record(tmp_path / 'teacher.pth', ('ant', 'cat', 'bee'))
    with pytest.raises(ValueError, match='knows the classes ant, cat, bee, the data have ant, bee, cat'):
        completed('deit_tiny_distilled_folder', images, teacher_checkpoint=path)


@pytest.mark.parametrize('odd', [dict(type='os.system', command='true'), dict(model_name='hf-hub:x/y')])
def test_what_a_hostile_teacher_records_is_not_built(images, tmp_path, odd):
    path = record(tmp_path / 'teacher.pth', ('ant', 'bee', 'cat'), **odd)
    with pytest.raises(ValueError, match='not known here|which timm has not'):
        completed('deit_tiny_distilled_folder', images, teacher_checkpoint=path)


@pytest.mark.parametrize(
    'student',
    [
        dict(type='DistilledTimmClassifier', model_name='levit_128s'),
        dict(
            type='DistilledClassifier',
            backbone=dict(type='LeViT', arch='128s'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LeViTClsHead', in_channels=384, loss=dict(type='DistillationLoss')),
        ),
    ],
    ids=['timm', 'mmpretrain'],
)
@pytest.mark.parametrize('taught', [True, False])
def test_students_that_are_no_deits(images, student, taught, tmp_path):
    text = f'_base_ = [{str(CONFIGS / "finetune/_base_/folder.py")!r}]\nmodel = {student!r}\n'
    (tmp_path / 'student.py').write_text(text)
    cfg = Config.fromfile(tmp_path / 'student.py')
    cfg.merge_from_dict(dict(data_root=str(images), image_size=64))
    if taught:
        cfg.merge_from_dict(dict(teacher='resnet10t', teacher_checkpoint='teacher.pth'))
    complete(cfg)
    model = build(dict(cfg.model, data_preprocessor=dict(cfg.data_preprocessor)))
    assert (model.teacher is not None) == (model.distillation is not None) == taught
    x = torch.rand(2, 3, 64, 64)
    cls, dist = model.train()(x)
    assert cls.shape == dist.shape == (2, 3)
    if not taught:
        assert model.loss(x, target(2))['loss'] > 0


@pytest.mark.parametrize('name, on', [('levit_128s', 'dist'), ('repvit_m0_9', 'dist'), ('fastvit_t8', 'cls')])
def test_a_student_of_timm_by_one_option(images, tmp_path, name, on):
    path = record(tmp_path / 'teacher.pth', ('ant', 'bee', 'cat'))
    cfg, _ = completed(
        'deit_tiny_distilled_folder', images, student=name, teacher_checkpoint=path, image_size=64
    )
    assert cfg.load_from is None and cfg.model.pretrained  # timm's weights in place of the DeiT's
    assert cfg.optim_wrapper.optimizer.lr < 1e-4  # a rate for what has learnt already
    assert (cfg.model.loss.mode, cfg.model.loss.distill_on) == ('hard', on)
    assert cfg.data_preprocessor.mean == [255 * v for v in timm.get_pretrained_cfg(name).mean]
    model = build(dict(cfg.model, pretrained=False, data_preprocessor=dict(cfg.data_preprocessor)))
    assert model.num_classes == 3 and model.model.pretrained_cfg['architecture'] == name


def test_a_student_of_timm_without_a_teacher_or_from_a_file(images):
    options = dict(student='repvit_m0_9', load_from='mine.pth')
    cfg, _ = completed('deit_tiny_distilled_folder', images, **options)
    assert cfg.load_from == 'mine.pth' and not cfg.model.pretrained
    assert cfg.model.loss.type == 'LabelSmoothLoss'
    digits = settings('digits_distilled_folder', images, student='repvit_m0_9', teacher_checkpoint=None)
    complete(digits)
    assert not digits.model.pretrained and digits.optim_wrapper.optimizer.lr == 1e-3


def test_students_that_there_are_not(images):
    with pytest.raises(ValueError, match="student='levit_129' is no model.*levit_12"):
        completed('deit_tiny_distilled_folder', images, student='levit_129')
    with pytest.raises(ValueError, match="student='levit_128s': this config trains a teacher"):
        completed('teacher_folder', images, student='levit_128s')


def test_options_of_the_model_are_those_of_the_student(images, tmp_path):
    path = record(tmp_path / 'teacher.pth', ('ant', 'bee', 'cat'))
    options = {'model.head.loss.mode': 'soft', 'model.head.loss.tau': 3.0, 'model.drop_path_rate': 0.1}
    options |= {'model.head.prediction': 'cls', 'model.loss.alpha': 0.9}
    cfg, _ = completed(
        'deit_tiny_distilled_folder', images, student='levit_128s', teacher_checkpoint=path, **options
    )
    loss = cfg.model.loss
    assert (loss.mode, loss.tau, loss.alpha, loss.distill_on) == ('soft', 3.0, 0.9, 'dist')
    assert cfg.model.prediction == 'cls' and cfg.model.drop_path_rate == 0.1
    assert len(cfg.model.train_cfg.augments) == 2 and not cfg.model.keys() & {'head', 'neck', 'backbone'}
    wrong = dict(student='levit_128s', **{'model.model_nam': 'foo'})
    cfg, _ = completed('deit_tiny_distilled_folder', images, **wrong)
    with pytest.raises(TypeError, match='model_nam'):
        build(dict(cfg.model, pretrained=False, data_preprocessor=dict(cfg.data_preprocessor)))
