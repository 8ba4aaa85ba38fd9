"""Models small enough to train in a test, and peers to compare with."""

import copy
import functools
import gc
import os
import re
import signal
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, utils
from mmengine.evaluator import BaseMetric
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS, METRICS, MODELS, RUNNERS
from mmpretrain.structures import DataSample

import deit_plugin  # noqa: F401

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
NUM_CLASSES = 5
if 'PYTEST_XDIST_WORKER' in os.environ:  # the others have the other cores
    torch.set_num_threads(1)


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device')


def pytest_itemcollected(item):
    """``--junitxml`` then tells tests/ecosystem/table.py which tool a test is about."""
    for marker in item.iter_markers('tool'):
        item.user_properties.append(('tool', ' | '.join(marker.args)))


@pytest.fixture(autouse=True)
def one_thread(request):
    """Models as small as here wait for a second thread more than they compute."""
    if request.node.get_closest_marker('slow'):
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def in_time():
    """Whoever waits for a pipe is told."""

    def late(*args):
        pytest.fail('it waits')

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope='session')
def whole_heap():
    """At the end all is garbage, or extensions complain."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope='module')
def small_heap(whole_heap):
    """mmengine collects the garbage after each data set that it reads, and would look at all that is
    imported here each time: up to a second."""
    gc.collect()
    gc.freeze()


def distilled(mode='hard', **changes):
    """The config of a distilled DeiT for 32 x 32 images, with a convolutional teacher."""
    cfg = dict(
        type='DistilledClassifier',
        backbone=dict(type='DeiT', arch=ARCH, distilled=True, img_size=32, patch_size=8),
        neck=dict(type='DistillationTokenNeck'),
        head=dict(
            type='DeiTDualHead',
            num_classes=NUM_CLASSES,
            in_channels=32,
            loss=dict(type='DistillationLoss', mode=mode),
        ),
        teacher=teacher_cfg(),
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3, num_classes=NUM_CLASSES),
    )
    return copy.deepcopy({**cfg, **changes})


@pytest.fixture
def distilled_cfg():
    """See :func:`distilled`."""
    return distilled()


@pytest.fixture
def quick(monkeypatch):
    """Printing the config takes longer than training for so few steps."""
    monkeypatch.setattr(Config, 'pretty_text', '')


@pytest.fixture
def drawing_model(distilled_cfg, tmp_path):
    """With everything that draws, and a teacher that all runs share."""
    distilled_cfg['backbone']['drop_path_rate'] = 0.2
    distilled_cfg['train_cfg'] = dict(
        augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]
    )
    distilled_cfg['data_preprocessor'].update(type='DeiTDataPreprocessor', rand_augment=dict(), erasing=0.25)
    teacher = build(distilled_cfg['teacher'])
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    distilled_cfg['teacher']['checkpoint'] = str(tmp_path / 'teacher.pth')
    return distilled_cfg


@pytest.fixture(autouse=True, scope='session')
def quick_to_read():
    """For each `mmpretrain::` base, mmengine parses the metafiles of all models of mmpretrain: 0.2 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, 'load', functools.cache(utils.load))
        yield


def teacher_cfg(num_classes=NUM_CLASSES, **kwargs):
    return dict(
        type='TimmClassifier',
        model_name='regnety_002',
        num_classes=num_classes,
        depth=6,
        w0=8,
        wa=8.0,
        wm=2.0,
        group_size=4,
        stem_width=8,
        output_stride=8,
        data_preprocessor=dict(mean=[120.0] * 3, std=[60.0] * 3),
        **kwargs,
    )


def config(name):
    """A config of this repository."""
    return Config.fromfile(CONFIGS / f'{name}.py')


def build(cfg):
    """In the scope in which a runner builds."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(copy.deepcopy(cfg))


def make_batch(size=4, side=32, num_classes=NUM_CLASSES):
    """A batch as mmpretrain's data pipeline and collating give it."""
    return dict(
        inputs=torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_label(i % num_classes) for i in range(size)],
    )


def step(model, batch):
    """The losses of a training step, without the step."""
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    return model(**data, mode='loss')


def shuffle_weights(module):
    """Weights of which each matters, norms and biases included."""
    for name, parameter in module.named_parameters():
        torch.nn.init.normal_(parameter, std=0.05)
        if re.search(r'(norm|ln)\d?\.weight$', name):
            parameter.data += 1
    return module


_TIMM_NAMES = [
    (r'^backbone\.patch_embed\.projection', 'patch_embed.proj'),
    (r'^backbone\.ln1', 'norm'),
    (r'^backbone\.layers', 'blocks'),
    (r'\.ln(\d)\.', r'.norm\1.'),
    (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
    (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
    (r'^backbone\.', ''),
    (r'^head\.layers\.', ''),
]


def to_timm(state_dict):
    """The weights of a classifier of ours under timm's names."""
    renamed = {}
    for name, value in state_dict.items():
        for pattern, new in _TIMM_NAMES:
            name = re.sub(pattern, new, name)
        renamed[name] = value
    return renamed


@DATASETS.register_module()
class Noise(torch.utils.data.Dataset):
    """Random images with labels, the same at each run."""

    def __init__(self, size=4, side=32, num_classes=NUM_CLASSES):
        generator = torch.Generator().manual_seed(0)
        shape = size, 3, side, side
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.num_classes = num_classes

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        sample = DataSample().set_gt_label(i % self.num_classes)
        return dict(inputs=self.images[i], data_samples=sample)


@METRICS.register_module()
class Scripted(BaseMetric):
    """An accuracy that goes as a test wants it."""

    def __init__(self, values, keys=('accuracy/top1',)):
        super().__init__()
        self.values, self.keys = list(values), keys

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        # The last one again, as a resumed training validates its checkpoint once more.
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        return dict.fromkeys(self.keys, value)


class InSinglePrecision(torch.nn.Module):
    """For a peer in double precision: a teacher as ours asks it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images.float())


def make_runner(model, work_dir, scores=(1.0, 3.0, 2.0, 4.0), **kwargs):
    """A runner of one epoch of two iterations for each score."""
    loader = dict(
        dataset=dict(type='Noise'),
        batch_size=2,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    checkpoint = dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto')
    cfg = dict(
        model=model,
        work_dir=str(work_dir),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=len(scores)),
        val_cfg=dict(),
        val_evaluator=dict(type='Scripted', values=scores),
        optim_wrapper=dict(optimizer=dict(type='AdamW')),
        default_hooks=dict(checkpoint=checkpoint, finite_loss=dict(type='FiniteLossHook')),
        default_scope='mmpretrain',
        experiment_name=f'{work_dir.name}_{len(os.listdir(work_dir))}',
    )
    cfg = copy.deepcopy({**cfg, **kwargs})
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def check_on_gpu(augment, images):
    """The same draws whatever the device's generator did, the same pixels, and no wait for the device."""
    torch.manual_seed(3)
    expected = augment(images)
    on_gpu = images.cuda()
    torch.manual_seed(3)
    torch.cuda.manual_seed(4)
    torch.cuda.set_sync_debug_mode('error')
    try:
        augmented = augment(on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert augmented.is_cuda
    assert (augmented.cpu() != expected).double().mean() < 1e-3
