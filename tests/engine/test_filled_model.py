"""A model that is evaluated holds what its checkpoint holds."""

import copy
import os.path as osp
import pickle
import re

import pytest
import torch
import torch.distributed as dist
import torch.nn as nn
from conftest import (
    NUM_CLASSES,
    build,
    make_batch,
    make_runner,
    shuffle_weights,
    step,
    teacher_cfg,
    to_timm,
)
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from mmpretrain.registry import DATASETS, MODELS
from mmpretrain.structures import DataSample
from trainings import unique_name

from deit_plugin.engine.utils import unwrap

pytestmark = pytest.mark.usefixtures('quick')
LOADER = dict(
    dataset=dict(type='Noise'),
    batch_size=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
)
HOOK = dict(type='FilledModelHook')


@pytest.fixture
def cfg(distilled_cfg):
    """Without a teacher, which is not in a checkpoint."""
    distilled_cfg['teacher'] = None
    distilled_cfg['head']['loss']['mode'] = 'none'
    return distilled_cfg


def runner_of(cfg, folder, path=None, hooks=(HOOK,), **kwargs):
    """For a training of an epoch, or a test."""
    return make_runner(
        cfg,
        folder,
        scores=(1.0,),
        custom_hooks=list(hooks),
        load_from=None if path is None else str(path),
        test_dataloader=LOADER,
        test_cfg=dict(),
        test_evaluator=dict(type='Scripted', values=[1.0]),
        val_evaluator=dict(type='Scripted', values=[1.0] * 9),
        experiment_name=unique_name(),
        **kwargs,
    )


def log_of(folder):
    return max(folder.glob('*/*.log'), key=osp.getmtime).read_text()


def save(path, state):
    torch.save(dict(state_dict=dict(state), meta={}), path)
    return path


@pytest.fixture
def weights(cfg):
    return shuffle_weights(build(cfg)).state_dict()


@pytest.fixture
def path(weights, tmp_path):
    """A checkpoint that fills the model."""
    return save(tmp_path / 'weights.pth', weights)


def same(model, weights):
    state = model.state_dict()
    assert state.keys() == weights.keys()
    return all(torch.equal(value, state[name].cpu()) for name, value in weights.items())


def trained(cfg, folder):
    """The checkpoint of a training."""
    (folder / 'trained').mkdir()
    make_runner(cfg, folder / 'trained', scores=(1.0,), experiment_name=unique_name()).train()
    return folder / 'trained' / 'epoch_1.pth'


@pytest.mark.parametrize(
    'change, lacks',
    [
        (
            dict(
                backbone=dict(distilled=False),
                neck=None,
                head=dict(type='VisionTransformerClsHead', num_classes=5, in_channels=32),
                teacher=None,
            ),
            'backbone.dist_token.*head_dist',
        ),
        (
            dict(head=dict(num_classes=7, type='DeiTDualHead'), teacher=None),
            'head.layers.head.weight',
        ),
    ],
)
def test_a_checkpoint_that_does_not_fill_the_model(distilled_cfg, tmp_path, change, lacks):
    """mmengine only warns of what a checkpoint lacks."""
    other = copy.deepcopy(distilled_cfg)
    other['backbone'].update(change.get('backbone', {}))
    if 'neck' in change:
        other.update(neck=None, head=change['head'])
    other['head'].update(change['head'])
    other['teacher'] = None
    path = save(tmp_path / 'other.pth', build(other).state_dict())
    with pytest.raises(ValueError, match=f'does not fill.*{lacks}'):
        runner_of(distilled_cfg, tmp_path, path).test()
    last = torch.load(trained(distilled_cfg, tmp_path))
    last['state_dict'] = build(other).state_dict()
    del last['meta']['weights_sha256']
    torch.save(last, tmp_path / 'last.pth')
    with pytest.raises(ValueError, match='does not fill'):
        runner_of(distilled_cfg, tmp_path, tmp_path / 'last.pth', resume=True).train()
    tuned = runner_of(distilled_cfg, tmp_path, path)
    tuned.train()  # to fine-tune
    assert re.search(f'Not filled by the checkpoint, newly drawn.*{lacks}', log_of(tmp_path))
    save(path, tuned.model.state_dict())
    runner_of(distilled_cfg, tmp_path, path).test()


def test_a_whole_checkpoint_is_loaded(cfg, weights, path, tmp_path):
    runner = runner_of(cfg, tmp_path, path)
    runner.test()
    assert same(runner.model, weights)
    assert 'Not filled' not in log_of(tmp_path)


def test_without_the_hook_mmengine_goes_on(cfg, weights, tmp_path):
    """Else there would be nothing to test here."""
    head = dict(type='VisionTransformerClsHead', num_classes=NUM_CLASSES, in_channels=32)
    cfg.update(type='ImageClassifier', neck=dict(type='DistillationTokenNeck', token='cls'), head=head)
    cfg.pop('teacher')
    del weights['head.layers.head.bias']
    runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', weights), hooks=()).test()


@pytest.mark.parametrize('dual', [True, False])
def test_heads_of_this_package_refuse_without_the_hook_too(dual, distilled_cfg, weights, tmp_path):
    """As after mmpretrain's `get_model(..., pretrained=FILE)`, which only warns."""
    if not dual:
        head = dict(type='DeiTHead', num_classes=NUM_CLASSES, in_channels=32)
        distilled_cfg.update(type='ImageClassifier', neck=None, head=head)
        distilled_cfg.pop('teacher'), distilled_cfg['backbone'].pop('distilled')
        weights = build(distilled_cfg).state_dict()
    for change in ({}, {'head.layers.head.bias': torch.ones(7)}):
        given = {k: v for k, v in weights.items() if k != 'head.layers.head.bias'} | change
        model = get_model(Config(dict(model=distilled_cfg)))
        load_checkpoint(model, str(save(tmp_path / 'a.pth', given)))
        with pytest.raises(ValueError, match=r'does not fill head.layers.head.bias.*random.*load_from'):
            model.eval()
        with pytest.raises(ValueError, match='does not fill head.layers.head.bias'):
            get_model(Config(dict(model=distilled_cfg)), pretrained=str(save(tmp_path / 'a.pth', given)))
        model.train()
        step(model, make_batch()) if not dual else model.head.loss(
            (torch.rand(2, 32), torch.rand(2, 32)),
            make_batch(2)['data_samples'],
            teacher=torch.rand(2, NUM_CLASSES),
        )
        model.eval()  # they are learnt now
    model = get_model(Config(dict(model=distilled_cfg)), pretrained=str(save(tmp_path / 'a.pth', weights)))
    assert not model.training and not model.head.unfilled


@pytest.mark.parametrize('name', ['backbone.ln1.bias', 'backbone.layers.1.attn.qkv.weight'])
def test_a_backbone_is_whole_also_to_fine_tune(cfg, weights, tmp_path, name):
    del weights[name]
    runner = runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', weights))
    with pytest.raises(ValueError, match=re.escape(name.split('.', 1)[1])):
        runner.train()


@pytest.mark.parametrize('name', ['head.layers.head.bias', 'backbone.ln1.weight'])
@pytest.mark.parametrize('train', [False, True])
def test_what_could_not_be_copied_is_not_filled(cfg, path, tmp_path, name, train):
    """torch does not count it among the missing names, and mmengine only warns of it."""
    runner = runner_of(cfg, tmp_path, path)
    parameter = runner.model.get_parameter(name)
    parameter.data = torch.zeros(1).expand(parameter.shape)  # one value for all, to read only
    runner.model.init_weights = lambda: None
    if train and name.startswith('head'):
        runner.call_hook('before_run')
        runner._train_loop = runner.build_train_loop(runner._train_loop)
        runner.load_or_resume()  # a step would write into it
        assert f'Not filled by the checkpoint, newly drawn: {name}\n' in log_of(tmp_path)
        return
    with pytest.raises(ValueError, match=re.escape(f'does not fill {name},')):
        runner.train() if train else runner.test()


def test_a_sparse_tensor_does_not_fill(cfg, weights, tmp_path):
    """It is named."""
    weights['head.layers.head.bias'] = weights['head.layers.head.bias'].to_sparse()
    runner = runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', weights))
    with pytest.raises(
        pickle.UnpicklingError, match='state_dict.head.layers.head.bias is a tensor that is sparse'
    ):
        runner.test()


def test_a_value_that_was_changed_on_the_way_is_not_filled(cfg, path, tmp_path):
    runner = runner_of(cfg, tmp_path, path)

    def change(module, *args):
        module.bias.data += 1

    runner.model.head.layers.head.register_load_state_dict_post_hook(change)
    with pytest.raises(ValueError, match='does not fill .*head.layers.head.bias'):
        runner.test()


@pytest.mark.parametrize(
    'edit',
    [
        lambda w: {k: v.half() for k, v in w.items()},
        lambda w: {k: v.double() for k, v in w.items()},
        lambda w: {f'module.{k}': v for k, v in w.items()},
        lambda w: {**w, 'of.another.model': torch.zeros(2)},
    ],
    ids=['half', 'double', 'module', 'more'],
)
def test_the_same_values_in_other_words_fill(cfg, weights, tmp_path, edit):
    edited = edit(weights)
    runner = runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', edited))
    runner.test()
    expected = {name: edited.get(name, edited.get(f'module.{name}')).float() for name in weights}
    assert same(runner.model, expected)


def test_position_embeddings_of_another_size_fill(cfg, weights, path, tmp_path):
    cfg['backbone']['img_size'] = 48
    runner = runner_of(cfg, tmp_path, path)
    runner.test()
    assert runner.model.backbone.pos_embed.shape[1] == 2 + 36


def test_names_of_timm_fill(cfg, weights, tmp_path):
    """As of the reference, whose files hold the weights as `model`."""
    foreign = to_timm(weights)
    torch.save(dict(model=foreign), tmp_path / 'a.pth')
    runner = runner_of(cfg, tmp_path, tmp_path / 'a.pth')
    runner.test()
    assert same(runner.model, weights)
    del foreign['head_dist.bias']
    torch.save(dict(model=foreign), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match='does not fill .*head_dist.bias'):
        runner_of(cfg, tmp_path, tmp_path / 'a.pth').test()


LENET = dict(
    type='ImageClassifier',
    backbone=dict(type='LeNet5'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=84),
)


@pytest.mark.parametrize(
    'given, problem',
    [
        ({}, r'does not fill head.fc.bias,'),
        (dict(value=torch.zeros(6)), r'does not fill head.fc.bias,'),
        (dict(value=None), r'not a weight: head.fc.bias \(it is a None'),
        (dict(value=torch.ones(5).to_sparse()), r'state_dict.head.fc.bias is a tensor that is sparse'),
        (dict(value=torch.ones(5, dtype=torch.int64)), r'not a weight: head.fc.bias \(int64'),
    ],
    ids=['missing', 'shape', 'none', 'sparse', 'integers'],
)
def test_a_model_without_a_deit_is_compared_too(tmp_path, given, problem):
    weights = build(LENET).state_dict()
    del weights['head.fc.bias']
    if given:
        weights['head.fc.bias'] = given['value']
    with pytest.raises((ValueError, pickle.UnpicklingError), match=problem):
        runner_of(LENET, tmp_path, save(tmp_path / 'a.pth', weights)).test()


def test_weights_of_another_model_are_no_start(tmp_path):
    """Of a model that has none of ours."""
    weights = build(dict(type='ImageClassifier', backbone=dict(type='ResNet', depth=18))).state_dict()
    runner = runner_of(LENET, tmp_path, save(tmp_path / 'a.pth', weights))
    with pytest.raises(ValueError, match='fills 0 of the 8 weights of the model: is it of another one'):
        runner.train()


# --- a moving average beside it --------------------------------------------


class Seen(Hook):
    """The weights at the first step, and at the first of a test."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.trained = copy.deepcopy(unwrap(runner.model).state_dict())

    def before_test_iter(self, runner, batch_idx, data_batch=None):
        self.tested = copy.deepcopy(unwrap(runner.model).state_dict())


def averages():
    """mmpretrain's hook and mmengine's, registered before FilledModelHook and after it."""
    kinds = [dict(type=kind, momentum=0.1) for kind in ('EMAHook', 'mmengine.EMAHook')]
    orders = [order for ema in kinds for order in ((HOOK, ema), (ema, HOOK))]
    return pytest.mark.parametrize('hooks', orders, ids=lambda hooks: '-'.join(h['type'] for h in hooks))


def equal(states, others):
    return all(torch.equal(value, others[name]) for name, value in states.items())


@averages()
def test_beside_a_moving_average(cfg, path, tmp_path, hooks):
    """Which loads the checkpoint into a copy of the model, that has its load hooks too."""
    trained = runner_of(cfg, tmp_path, path, hooks)
    trained.train()
    averaged, last = torch.load(tmp_path / 'epoch_1.pth')['state_dict'], trained.model.state_dict()
    assert not equal(averaged, last)
    seen = Seen()
    runner = runner_of(cfg, tmp_path, tmp_path / 'epoch_1.pth', hooks)
    runner.register_hook(seen)
    runner.test()
    assert equal(averaged, seen.tested)

    longer = dict(by_epoch=True, max_epochs=2)
    resumed = runner_of(cfg, tmp_path, tmp_path / 'epoch_1.pth', hooks, resume=True, train_cfg=longer)
    resumed.register_hook(seen)
    resumed.train()
    assert equal(last, seen.trained)


@averages()
@pytest.mark.parametrize('name, train', [('head.layers.head.bias', False), ('backbone.ln1.bias', True)])
def test_what_is_not_filled_beside_a_moving_average(cfg, weights, tmp_path, hooks, name, train):
    del weights[name]
    runner = runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', weights), hooks)
    with pytest.raises(ValueError, match=f'does not fill .*{name}'):
        runner.train() if train else runner.test()


# --- models in wrappers ------------------------------------------------------


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@MODEL_WRAPPERS.register_module()
class Around(nn.Module):
    """A wrapper whose parameters have longer names than the model's."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def test_step(self, *args):
        return self.module.test_step(*args)


@MODELS.register_module()
class FirstView(BaseTTAModel):
    """Of several views of an image the answer to the first counts."""

    def merge_preds(self, data_samples_list):
        return [samples[0] for samples in data_samples_list]


@DATASETS.register_module()
class Views(torch.utils.data.Dataset):
    """Two views of each image."""

    metainfo = dict()

    def __len__(self):
        return 4

    def __getitem__(self, i):
        views = [torch.full((3, 32, 32), i + view, dtype=torch.uint8) for view in range(2)]
        return dict(inputs=views, data_samples=[DataSample().set_gt_label(0) for _ in views])


VIEWS = dict(LOADER, dataset=dict(type='Views'), collate_fn=dict(type='pseudo_collate'))


@pytest.mark.parametrize('wrap', [MMDistributedDataParallel, Around, lambda m: Around(Around(m))])
def test_a_wrapped_model_is_compared(cfg, weights, path, tmp_path, group, wrap):
    runner = runner_of(cfg, tmp_path, path)
    model = runner.model
    runner.model = wrap(model)
    assert unwrap(runner.model) is model
    runner.test()
    assert same(model, weights)
    del weights['head.layers.head_dist.bias']
    runner = runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', weights))
    runner.model = wrap(runner.model)
    with pytest.raises(ValueError, match=r'does not fill head.layers.head_dist.bias,'):
        runner.test()


def test_a_model_with_test_time_augmentation_is_compared(cfg, weights, path, tmp_path):
    """As `mim test --tta` wraps it, before the runner has it."""
    cfg = dict(type='FirstView', module=cfg)
    runner = runner_of(cfg, tmp_path, path)
    runner._test_dataloader = VIEWS
    runner.test()
    assert same(runner.model.module, weights)
    assert unwrap(Around(runner.model)) is runner.model.module
    del weights['head.layers.head.bias']
    runner = runner_of(cfg, tmp_path, save(tmp_path / 'a.pth', weights))
    runner._test_dataloader = VIEWS
    with pytest.raises(ValueError, match=r'does not fill head.layers.head.bias,'):
        runner.test()


def test_nothing_to_unwrap(cfg):
    model = build(cfg)
    assert unwrap(model) is model


def test_a_timm_model_is_known_by_the_names_that_it_saves(tmp_path):
    """mmpretrain leaves `model.` out of them."""
    trained = runner_of(teacher_cfg(), tmp_path)
    trained.train()
    path = tmp_path / 'epoch_1.pth'
    assert runner_of(teacher_cfg(), tmp_path, path).test()
    weights = torch.load(path)['state_dict']
    del weights['stem.conv.weight']
    save(path, weights)
    with pytest.raises(ValueError, match=r'does not fill model\.stem\.conv\.weight, which'):
        runner_of(teacher_cfg(), tmp_path, path).test()
