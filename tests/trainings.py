"""Trainings of a second, whose draws a test can see."""

import random
import uuid

import numpy as np
import torch
from conftest import make_runner
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS, MODELS, TRANSFORMS


def draw():
    """A number from each generator."""
    return random.random(), np.random.rand(), torch.rand(()).item()


@TRANSFORMS.register_module()
class Jitter(BaseTransform):
    """Draws by each library, and gives up on some images."""

    def transform(self, results):
        drawn = draw()
        results['drawn'] = drawn
        results['img'] = np.clip(results['img'] * (0.5 + np.prod(drawn)), 0, 255).astype(np.uint8)
        return results if drawn[0] < 0.8 else None


@DATASETS.register_module()
class Dots(BaseDataset):
    """Twenty images of 32 x 32."""

    METAINFO = dict(classes=tuple('abcde'))

    def load_data_list(self):
        generator = np.random.RandomState(0)
        return [
            dict(img=generator.randint(0, 256, (32, 32, 3), dtype=np.uint8), gt_label=i % 5)
            for i in range(20)
        ]


@MODELS.register_module()
class Weights(BaseModel):
    """Two numbers, to train in no time; it counts its steps, and tells them when it is evaluated."""

    def __init__(self):
        super().__init__()
        self.numbers = torch.nn.Parameter(torch.ones(2))
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            self.steps += 1
            return dict(loss=self.numbers.square().sum())
        for sample in data_samples:
            sample.set_field(int(self.steps), 'steps')
        return data_samples


PIPELINE = [dict(type='Jitter'), dict(type='PackInputs', meta_keys=('drawn', 'sample_idx'))]


def dots(**kwargs):
    return Dots(ann_file='', pipeline=PIPELINE, **kwargs)


def training(model, folder, workers=0, sampler=None, seed_hook=True, batch_size=8, save=1, **kwargs):
    """A runner of 4 epochs of 5 iterations; a step takes two of these, so
    that an odd epoch ends amid one."""
    folder.mkdir(exist_ok=True)
    hooks = dict(
        checkpoint=dict(type='AtomicCheckpointHook', interval=save),
        batch=dict(type='GlobalBatchHook', batch_size=batch_size),
    )
    if seed_hook:
        hooks['seed'] = dict(type='SeedHook')
    cfg = dict(
        train_dataloader=dict(
            dataset=dict(type='Dots', ann_file='', pipeline=PIPELINE),
            batch_size=4,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=sampler or dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=dict(
            constructor='GroupedOptimWrapperConstructor',
            optimizer=dict(type='AdamW', weight_decay=0.05),
            paramwise_cfg=dict(flat_decay_mult=0.0),
        ),
        param_scheduler=[dict(type='DeiTLR', warmup_epochs=1)],
        custom_hooks=[dict(type='EMAHook', momentum=0.1)],
        default_hooks=hooks,
        scores=(1.0,) * 4,
        experiment_name=unique_name(),
    )
    return make_runner(model, folder, **{**cfg, **kwargs})


def unique_name():
    """mmengine takes what runs of one name in one second log for that of one run."""
    return uuid.uuid4().hex


def resumed(model, folder, checkpoint, **kwargs):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    runner = training(model, folder, save=4, load_from=str(checkpoint), resume=True, **kwargs)
    runner.train()
    stop_workers(runner)


def stop_workers(runner):
    """Else they do so when the garbage is collected, which takes 10 s."""
    iterator = runner.train_dataloader._iterator
    if iterator is not None:
        iterator._shutdown_workers()


def flatten(state):
    if isinstance(state, dict):
        return [x for k in sorted(state, key=str) for x in flatten(state[k])]
    if isinstance(state, (list, tuple)):
        return [x for i in state for x in flatten(i)]
    return [state]


def same(a, b):
    """Whether weights, moving average and optimizer are bitwise equal."""
    a, b = (torch.load(path) for path in (a, b))
    pairs = [(flatten(a[key]), flatten(b[key])) for key in ('state_dict', 'ema_state_dict', 'optimizer')]
    assert all(len(x) == len(y) > 0 for x, y in pairs)
    return all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for pair in pairs for x, y in zip(*pair)
    )


@DATASETS.register_module()
class Numbered(Dots):
    """Without the names of its classes."""

    METAINFO = {}

    def __init__(self, **kwargs):
        super().__init__(pipeline=PIPELINE, **kwargs)


class Record(Hook):
    """Keeps the loss of each iteration."""

    def __init__(self):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())


def trajectory(cfg, optim, folder, data, batch_size, epochs, **kwargs):
    """A runner that trains a config's model on images in their order, without validation, from the weights
    that it has by then; and the list of its losses."""
    runner = make_runner(
        cfg.model.to_dict(),
        folder,
        scores=[0.0] * epochs,
        train_dataloader=dict(
            dataset=data,
            batch_size=batch_size,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
        ),
        val_dataloader=None,
        val_cfg=None,
        val_evaluator=None,
        optim_wrapper=optim,
        param_scheduler=[schedule.to_dict() for schedule in cfg.param_scheduler],
        default_hooks=dict(checkpoint=None),
        **kwargs,
    )
    record = Record()
    runner.register_hook(record)
    runner.model.init_weights = lambda: None
    return runner, record.losses
