"""The time of an iteration over a long training, which is to stay what it is.

    python tests/benchmarks/long_run.py --iterations 400000

The demo's images and hooks, with a narrow student of one layer, so that the loop and its hooks take most
of the time. Its teacher, as narrow, answers first, for all iterations; the training replays it. CPU time is
that of the main process.
"""

import argparse
import os.path as osp
import tempfile
import time

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS, MODELS

from deit_plugin.apis.label import label

CONFIG = osp.join(osp.dirname(osp.abspath(__file__)), '..', '..', 'configs', 'deit_digits_distilled.py')
BATCH = 4
EPOCH = 1437 // BATCH
NARROW = dict(
    type='DeiT',
    arch=dict(embed_dims=8, num_layers=1, num_heads=1, feedforward_channels=8),
    img_size=16,
    patch_size=8,
)

TEACHER = dict(
    type='ImageClassifier',
    backbone=NARROW,
    head=dict(type='VisionTransformerClsHead', in_channels=8, num_classes=10),
    data_preprocessor=dict(mean=[77.9] * 3, std=[95.9] * 3),
)


@HOOKS.register_module()
class ClockHook(Hook):
    """Prints a line each so many iterations."""

    priority = 'LOWEST'

    def __init__(self, interval):
        self.interval = interval

    def before_train(self, runner):
        print('| iterations | ms an iteration | CPU ms | checkpoint, kB |\n|---|---|---|---|', flush=True)
        self.start = time.perf_counter(), time.process_time()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if not self.every_n_train_iters(runner, self.interval):
            return
        now = time.perf_counter(), time.process_time()
        wall, cpu = (1e3 * (b - a) / self.interval for a, b in zip(self.start, now))
        last, size = osp.join(runner.work_dir, 'last_checkpoint'), '-'
        if osp.isfile(last):
            with open(last) as file:
                size = f'{osp.getsize(file.read()) / 1e3:.0f}'
        print(f'| {runner.iter + 1:,} | {wall:.2f} | {cpu:.2f} | {size} |', flush=True)
        self.start = time.perf_counter(), time.process_time()


def options(folder, iterations, interval):
    """Changes of the demo's config."""
    return {
        'work_dir': osp.join(folder, 'run'),
        'train_dataloader.batch_size': BATCH,
        'train_dataloader.drop_last': True,
        'train_cfg.max_epochs': -(-iterations // EPOCH),
        'train_cfg.val_interval': 10**9,
        'default_hooks.checkpoint.interval': max(1, interval // EPOCH),
        'default_hooks.logger.interval': 100,
        'custom_hooks': [dict(type='ClockHook', interval=interval)],
        'model.backbone': dict(NARROW, _delete_=True, distilled=True),
        'model.head.in_channels': 8,
        'model.teacher': dict(TEACHER, _delete_=True, checkpoint=osp.join(folder, 'teacher.pth')),
        'model.teacher_labels': dict(path=osp.join(folder, 'labels')),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--iterations', type=int, default=400_000)
    parser.add_argument('--interval', type=int, default=20_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        teacher = MODELS.build(dict(TEACHER, _scope_='mmpretrain'))
        torch.save(teacher.state_dict(), osp.join(folder, 'teacher.pth'))
        changes = options(folder, args.iterations, args.interval)
        label(CONFIG, {**changes, 'custom_hooks': []}, osp.join(folder, 'label'))
        cfg = Config.fromfile(CONFIG)
        cfg.merge_from_dict({**changes, 'model.teacher_labels.mode': 'replay'})
        Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    main()
