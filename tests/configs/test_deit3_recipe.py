"""DeiT III's configs against timm and facebookresearch/deit at ``7e160fe``: its commands, tables and code."""

import functools
import re
from types import SimpleNamespace

import conftest
import numpy as np
import pytest
import timm
import torch
from conftest import ARCH, CONFIGS, ROOT, build
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATA_SAMPLERS
from mmpretrain.apis.model import ModelHub
from PIL import Image
from test_configs import make_pipeline, train
from test_recipe import IMAGENET_TRAIN
from test_student_recipes import originals, rates
from timm.optim import Lamb, param_groups_weight_decay
from trainings import resumed, same, training

from deit_plugin.checkpoints.names import from_mmpretrain
from deit_plugin.datasets import samplers
from deit_plugin.models import DeiTIII
from deit_plugin.models.three_augment import ThreeAugment

NAMES = sorted(path.stem for path in (CONFIGS / 'deit3').glob('*.py'))
ROWS = (CONFIGS / 'deit3' / 'README.md').read_text()
# README_revenge.md: line, size (``--model``), images of a GPU (``--batch``), ``--nodes`` of 8 GPUs,
# ``--input-size``, ``--drop-path``.
COMMANDS = dict(
    deit3_small=(81, 'small', 256, 1, 224, 0.05),
    deit3_base_192=(412, 'base', 256, 1, 192, 0.2),
    deit3_large_192=(745, 'large', 64, 4, 192, 0.45),
    deit3_huge_160=(1078, 'huge', 64, 4, 160, 0.6),
    deit3_base=(1411, 'base', 64, 1, 224, 0.2),
    deit3_large=(1432, 'large', 64, 1, 224, 0.45),
    deit3_huge=(1453, 'huge', 32, 2, 224, 0.55),
    deit3_small_384=(1475, 'small', 64, 1, 384, 0.0),
    deit3_base_384=(1495, 'base', 32, 2, 384, 0.15),
    deit3_large_384=(1515, 'large', 16, 4, 384, 0.4),
    deit3_small_21k=(1917, 'small', 128, 2, 224, 0.05),
    deit3_base_21k=(1949, 'base', 64, 4, 224, 0.15),
    deit3_large_21k=(1982, 'large', 64, 4, 224, 0.4),
    deit3_huge_21k=(2015, 'huge', 64, 4, 224, 0.45),
)
# naver-ai/rope-vit at ``ce85c2e``, deit/README.md: ``--drop-path`` of 400 epochs at a decay of 0.03. All else
# is that of 800 epochs.
SHORTER = dict(deit3_small_400e=0.0, deit3_base_192_400e=0.1, deit3_large_192_400e=0.4)
# What has no command, and whose is taken.
LIKE = dict(
    deit3_medium='deit3_small',
    deit3_medium_400e='deit3_small_400e',
    deit3_huge_160_400e='deit3_huge_160',
    deit3_medium_21k='deit3_small_21k',
    deit3_small_21k_384='deit3_small_384',
    deit3_base_21k_384='deit3_base_384',
    deit3_large_21k_384='deit3_large_384',
    deit3_small_cosub='deit3_small',
)
# The options that the commands of a kind share: ``--lr``, of S another, ``--epochs``, ``--weight-decay``,
# ``--opt``, ``--mixup``, ``--smoothing``, ``--repeated-aug``, ``--bce-loss``, ``--ThreeAugment``, ``--src``.
# ``--warmup-epochs 5``, ``--warmup-lr 1e-6``, ``--cutmix 1.0``, ``--eval-crop-ratio 1.0`` and
# ``--unscale-lr`` are in all of them.
OPTIONS = 'lr', 'epochs', 'decay', 'opt', 'mixup', 'smoothing', 'repeated', 'bce', 'three', 'src'
PRETRAINING = (3e-3, 800, 0.05, 'fusedlamb', 0.8, 0.0, True, True, True, False)
FINE_TUNING = (1e-5, 20, 0.1, 'adamw', 0.8, 0.1, False, False, False, False)
FROM_21K = (3e-4, 50, 0.02, 'fusedlamb', 0, 0.1, False, False, True, True)
# README_revenge.md, lines 37 to 44 and 52 to 59: top-1 at 224 and at 384, and the file of each.
PUBLISHED = dict(
    small=dict(k1=(81.4, 83.4), k21=(83.1, 84.8)),
    medium=dict(k1=(83.0,), k21=(84.5,)),
    base=dict(k1=(83.8, 85.0), k21=(85.7, 86.7)),
    large=dict(k1=(84.9, 85.8), k21=(87.0, 87.7)),
    huge=dict(k1=(85.2,), k21=(87.2,)),
)
# Of the last epoch in its logs, lines 739, 1072 and 1405.
LOGGED = dict(deit3_base_192=82.82, deit3_large_192=84.024, deit3_huge_160=83.484)
OWN_MODELS = [*COMMANDS, 'deit3_medium', 'deit3_medium_21k', 'deit3_small_cosub', 'deit3_base_192_400e']
KINDS = ['deit3_small', 'deit3_small_384', 'deit3_small_21k', 'deit3_small_cosub']
read = functools.cache(lambda name: conftest.config(f'deit3/{name}'))


def recipe(name):
    """The config, and what the reference's command says."""
    other = LIKE.get(name, name)
    _, size, images, nodes, side, drop_path = COMMANDS[other.removesuffix('_400e')]
    size = 'medium' if 'medium' in name else size
    of_21k = '21k' in name and '384' not in name
    kind = FROM_21K if of_21k else FINE_TUNING if nodes * images * 8 == 512 else PRETRAINING
    said = dict(zip(OPTIONS, kind))
    if kind is PRETRAINING:
        said['lr'] = 4e-3 if size in ('small', 'medium') else 3e-3
        said['epochs'] = 400 if '400e' in name else 800
    if other in SHORTER:
        drop_path, said['decay'] = SHORTER[other], 0.03
    rest = dict(size=size, images=images, gpus=8 * nodes, side=side, drop_path=drop_path)
    return read(name), SimpleNamespace(**said, **rest)


@functools.cache
def on_meta(name):
    with torch.device('meta'):
        return build(read(name).model)


def test_each_has_a_command_or_that_of_another():
    assert sorted([*COMMANDS, *SHORTER, *LIKE]) == NAMES
    texts = {name: (CONFIGS / 'deit3' / f'{name}.py').read_text() for name in NAMES}
    for name, other in LIKE.items():
        assert f'# Its command is not published: these are the values of {other}.py.' in texts[name]
        assert read(name).optim_wrapper == read(other).optim_wrapper
        assert 'medium' in name or 'cosub' in name or read(name).model == read(other).model
    for name in SHORTER:
        assert 'drop path and decay are of naver-ai/rope-vit at ce85c2e' in texts[name]


# What is published


def test_metafile_and_table_name_all():
    listed = [n for n, info in ModelHub._models_dict.items() if 'deit3' in str(info.filepath)]
    listed = [n for n in listed if n in NAMES]  # mmpretrain has others
    assert sorted(listed) == NAMES
    assert re.findall(r'(?m)^\| `(\w+)` \|', ROWS) == listed


def published(name):
    """Top-1 and the address of the weights, None where there are none."""
    _, said = recipe(name)
    if name in LOGGED:
        return round(LOGGED[name], 1), None
    if '400e' in name or 'cosub' in name:
        return None, None
    key = '21k' if '21k' in name else '1k'
    file = f'deit_3_{said.size}_{said.side}_{key}{"_v1" if name == "deit3_huge_21k" else ""}.pth'
    figure = PUBLISHED[said.size][f'k{key[:-1]}'][said.side == 384]
    return figure, f'https://dl.fbaipublicfiles.com/deit/{file}'


@pytest.mark.parametrize('name', NAMES)
def test_figures_weights_and_sizes(name, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tests' / 'benchmarks')
    from complexity import DEIT3

    figure, weights = published(name)
    text = (CONFIGS / 'deit3' / f'{name}.py').read_text()
    shown = re.findall(r'Published top-1: ([\d.]+) \(facebookresearch/deit, README_revenge.md\)', text)
    assert shown == ([] if figure is None else [str(figure)])
    info = ModelHub._models_dict[name]
    assert info.results[0].metrics == ({} if figure is None else {'Top 1 Accuracy': figure})
    assert info.weights == weights
    (cells,) = re.findall(rf'(?m)^\| `{name}` \| (.*) \|$', ROWS)
    top1, measured, params, flops, side, link = cells.split(' | ')
    assert top1 == ('-' if figure is None else str(figure)) and measured == 'not measured'
    assert params == f'{info.metadata.parameters / 1e6:.2f}M'
    assert flops == f'{info.metadata.flops / 1e9:.2f}G'
    said = recipe(name)[1]
    assert int(side) == said.side
    if said.side in (224, 384):  # published
        counted = DEIT3[said.size, said.side]
        assert (info.metadata.parameters, info.metadata.flops) == (
            counted[0],
            pytest.approx(counted[1], rel=1e-3),
        )
    else:
        assert info.metadata.parameters == sum(
            p.numel() for p in on_meta(name.removesuffix('_400e')).parameters()
        )
    assert link == ('not published' if weights is None else f'[{weights.split("/")[-1]}]({weights})')
    if weights is not None:  # as timm has them
        patch = 14 if 'huge' in name else 16
        tag = 'fb_in22k_ft_in1k' if '21k' in name else 'fb_in1k'
        peer = timm.get_pretrained_cfg(f'deit3_{said.size}_patch{patch}_{side}.{tag}')
        assert peer.url == weights and peer.input_size == (3, int(side), int(side))


# The recipe


@pytest.mark.parametrize('name', NAMES)
def test_rate_of_every_epoch(name):
    """timm's schedule as the reference's ``main.py`` steps it, with the number of an epoch after it."""
    cfg, said = recipe(name)
    (schedule,) = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == said.epochs
    got = rates(cfg.optim_wrapper.optimizer.lr, said.epochs, **schedule)
    np.testing.assert_allclose(got, originals(said.lr, 1e-6, said.epochs, 1, said.epochs), rtol=1e-12)
    assert got[:2] == [1e-6, 1e-6] and got[6] == pytest.approx(said.lr, rel=0.03)


@pytest.mark.parametrize('name', NAMES)
def test_optimizer_precision_and_batch(name):
    cfg, said = recipe(name)
    options = cfg.optim_wrapper.to_dict()
    optimizer = options.pop('optimizer')
    # ``--opt-eps`` is 1e-8 by default, and betas are those of each optimizer.
    assert optimizer.pop('type') == dict(fusedlamb='timm.optim.Lamb', adamw='AdamW')[said.opt]
    assert optimizer.pop('betas', (0.9, 0.999)) == (0.9, 0.999)
    assert optimizer == dict(lr=said.lr, eps=1e-8, weight_decay=said.decay)
    options.pop('paramwise_cfg')
    constructor = options.pop('constructor')
    assert constructor == 'GroupedOptimWrapperConstructor'
    assert options == dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')  # no clip_grad
    sampler, loader = cfg.train_dataloader.sampler, cfg.train_dataloader
    assert (sampler.processes, sampler.batch_size, loader.batch_size) == (said.gpus, said.images, said.images)
    assert cfg.default_hooks.global_batch.batch_size == said.gpus * said.images
    assert 'EMAHook' not in str(cfg.to_dict())


@pytest.mark.parametrize('name', ['deit3_small', 'deit3_huge_160', 'deit3_large_384', 'deit3_small_21k'])
def test_iterations_of_an_epoch(name, monkeypatch):
    """The reference's ``RASampler`` has ``floor(N // 256 * 256 / processes)`` images, torch's
    ``DistributedSampler`` ``ceil(N / processes)``."""
    cfg, said = recipe(name)
    given = dict(cfg.train_dataloader.sampler, dataset=range(IMAGENET_TRAIN), seed=0)
    given['type'] = f'mmpretrain.{given["type"]}'
    monkeypatch.setattr(samplers, 'get_world_size', lambda: said.gpus)
    sampler = DATA_SAMPLERS.build(given)
    drawn = IMAGENET_TRAIN // 256 * 256 // said.gpus if said.repeated else -(-IMAGENET_TRAIN // said.gpus)
    assert sampler.num_batches == drawn // said.images
    assert sampler.num_repeats == (3 if said.repeated else 1)
    assert cfg.train_dataloader.drop_last


@pytest.mark.parametrize('name', NAMES)
def test_model_augmentation_loss_and_evaluation(name):
    cfg, said = recipe(name)
    augmented = dict(rand_augment=None, three_augment={}) if said.three else dict(rand_augment={})
    expected = dict(type='DeiTDataPreprocessor', num_classes=1000, erasing=0.0, **augmented)
    normalised = {key: read('../deit_base').data_preprocessor[key] for key in ('mean', 'std', 'to_rgb')}
    assert cfg.data_preprocessor == dict(expected, **normalised)
    backbone = cfg.model.backbone
    assert (backbone.arch, backbone.drop_path_rate) == (said.size, said.drop_path)
    assert backbone.get('img_size', 224) == said.side
    cutmix = dict(type='CutMix', alpha=1.0)
    mixup = [dict(type='Mixup', alpha=said.mixup)] if said.mixup else []
    assert cfg.model.train_cfg.augments == [*mixup, cutmix]
    smoothed = dict(type='LabelSmoothLoss', label_smooth_val=said.smoothing)
    loss = dict(type='BinaryCrossEntropyLoss') if said.bce else smoothed
    cosub = 'cosub' in name  # engine.py has BCEWithLogitsLoss of the labels as they are
    assert cfg.model.head.loss == (dict(loss, target_threshold=None) if cosub else loss)
    assert cfg.model.type == ('CosubClassifier' if cosub else 'ImageClassifier')
    assert cfg.train_dataloader.sampler.get('repeat', 'distributed') == (
        'distributed' if said.repeated else False
    )
    crop = 'LoadSimpleRandomCrop' if said.src else 'LoadRandomResizedCrop'
    assert cfg.train_dataloader.dataset.pipeline == [
        dict(type=crop, scale=said.side),
        dict(type='PackInputs'),
    ]
    assert cfg.train_pipeline == cfg.train_dataloader.dataset.pipeline
    deit = read('../deit_base').test_pipeline
    whole = [deit[0], dict(deit[1], scale=said.side), dict(deit[2], crop_size=said.side), deit[3]]
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.pipeline == cfg.test_pipeline == whole


def test_three_augment_is_built_with_the_references_color_jitter():
    for name in ('deit3_base_192', 'deit3_base_21k'):  # ``--color-jitter 0.3``
        augment = build(read(name).data_preprocessor)._operations
        assert isinstance(augment, ThreeAugment) and augment.color_jitter == 0.3
        assert (augment.min_radius, augment.max_radius) == (0.1, 2.0)  # augment.py


@pytest.mark.parametrize('name', NAMES)
def test_start(name):
    """From which weights: a config's own last epoch, of the size and at the end of its training."""
    cfg, said = recipe(name)
    before = cfg.get('load_from')
    if said.src:
        assert before == f'data/deit3_{said.size}_of_21k.pth'
    elif said.opt == 'adamw':
        earlier, epoch = re.fullmatch(r'work_dirs/(\w+)/epoch_(\d+)\.pth', before).groups()
        other = recipe(earlier)[1]
        assert other.size == said.size and other.epochs == int(epoch) and other.side <= said.side
        assert ('21k' in earlier) == ('21k' in name) and other.opt == 'fusedlamb'
    else:
        assert before is None


@pytest.mark.parametrize('name', OWN_MODELS)
def test_decay_and_drop_path_of_each_layer(name):
    """By timm's rule for timm's model; models_v2.py exempts the class token and the position embeddings."""
    cfg, said = recipe(name)
    model = on_meta(name)
    options = dict(cfg.optim_wrapper, constructor='mmpretrain.GroupedOptimWrapperConstructor')
    optimizer = build_optim_wrapper(model, options).optimizer
    assert type(optimizer) is (Lamb if said.opt == 'fusedlamb' else torch.optim.AdamW)
    given = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    patch = 14 if said.size == 'huge' else 16
    with torch.device('meta'):
        peer = timm.create_model(f'deit3_{said.size}_patch{patch}_224', img_size=said.side)
    groups = param_groups_weight_decay(peer, said.decay, no_weight_decay_list=('pos_embed', 'cls_token'))
    expected = {id(p): g['weight_decay'] for g in groups for p in g['params']}
    theirs = {n: (p.shape, expected[id(p)]) for n, p in peer.named_parameters()}
    ours = from_mmpretrain(dict(model.named_parameters()), 'timm')
    assert {n: (p.shape, given[id(p)]) for n, p in ours.items()} == theirs
    assert (
        theirs['blocks.11.ls2.gamma'][1] == theirs['pos_embed'][1] == 0 and len(optimizer.param_groups) == 2
    )
    assert [p.drop_prob for paths in model.backbone._paths for p in paths] == (
        [said.drop_path] * 2 * DeiTIII.arch_zoo[said.size]['num_layers'] if said.drop_path else []
    )


# Training


def small(name):
    """The config with three narrow layers, on images of 32."""
    cfg = conftest.config(f'deit3/{name}')
    cfg.model.backbone.update(arch=ARCH, img_size=32, patch_size=8)
    cfg.model.head.in_channels = ARCH['embed_dims']
    return cfg


@pytest.mark.parametrize('name', ['deit3_small_21k', 'deit3_small_cosub'])
def test_a_whole_classifier_starts_as_models_v2_draws_it(name):
    cfg = small(name)
    cfg.model.backbone.arch = 'tiny'
    cfg.model.head.in_channels = 192
    model = build(cfg.model)
    model.init_weights()
    head = model.head.layers.head
    drawn = [layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Linear)]
    assert drawn[-1] is head.weight and head.weight.shape == (1000, 192) and len(drawn) == 1 + 4 * 12
    for weight in drawn:  # normal: some are beyond four deviations, none is cut off at two
        assert weight.std().item() == pytest.approx(0.02, rel=0.02) and abs(weight.mean()) < 4e-4
        assert 0.07 < weight.abs().max() < 0.15
    assert not head.bias.any()
    scales = [p for n, p in model.named_parameters() if 'gamma' in n]
    assert len(scales) == 24 and all((p == 1e-4).all() for p in scales)


@pytest.mark.parametrize('name', KINDS)
def test_two_iterations(name, tmp_path, quick):
    cfg = small(name)
    train(cfg, tmp_path)


@pytest.mark.parametrize('name', ['deit3_huge_160', 'deit3_large_384', 'deit3_base_21k'])
def test_an_image_reaches_the_model(name, tmp_path):
    """From the file: in training and in evaluation."""
    cfg, said = recipe(name)
    Image.effect_noise((300, 400), 80).convert('RGB').save(tmp_path / 'image.jpg')
    preprocessor = build(cfg.data_preprocessor)
    for training_, loader in ((True, cfg.train_dataloader), (False, cfg.test_dataloader)):
        packed = make_pipeline(loader)(dict(img_path=str(tmp_path / 'image.jpg'), gt_label=3))
        assert packed['inputs'].shape == (3, said.side, said.side)
        batch = dict(inputs=packed['inputs'][None], data_samples=[packed['data_samples']])
        images = preprocessor(batch, training_)['inputs']
        assert images.dtype == torch.float32 and images.std() > 0.1


def test_a_training_resumes_to_the_bit(tmp_path, quick):
    """LAMB counts its steps in its groups, where others have them with each parameter."""
    cfg = small('deit3_small')
    model = cfg.model.to_dict()
    model['head']['num_classes'] = 5
    model['data_preprocessor'] = dict(cfg.data_preprocessor.to_dict(), num_classes=5)
    kwargs = dict(optim_wrapper=cfg.optim_wrapper.to_dict())
    training(model, tmp_path / 'whole', **kwargs).train()
    resumed(model, tmp_path / 'late', tmp_path / 'whole' / 'epoch_2.pth', **kwargs)
    assert same(tmp_path / 'whole' / 'epoch_4.pth', tmp_path / 'late' / 'epoch_4.pth')
    groups = torch.load(tmp_path / 'late' / 'epoch_4.pth')['optimizer']['param_groups']
    assert [int(group['step']) for group in groups] == [10, 10]
