"""One training on any number of processes, with any batch and number of workers.

    python tests/benchmarks/virtual_processes.py
    python tests/benchmarks/virtual_processes.py --kills 10

A narrow student learns the demo's digits from its teacher, by a recipe of 16 processes x 4 images with the
full augmentation and drop path. Compared with 1 process that accumulates 16 batches of 4: the images and
targets of each virtual process in each step, to the bit, and the weights at the end. The biases of the keys
are left out: attention does not depend on them, so their gradients are rounding errors, of which AdamW makes
whole steps.

With `--kills` it is a training that is killed at random moments, and each time resumed on another number of
processes, with another batch and number of workers.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmpretrain.registry import MODELS

from deit_plugin.draws import current_iteration
from deit_plugin.engine.runner import DeiTRunner
from deit_plugin.models import DeiTDataPreprocessor

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'deit_digits_distilled.py'
PROCESSES, BATCH = 16, 4
DTYPE = torch.float32
# Processes, batch of each, workers of each.
REFERENCE = (1, 4, 0)
WAYS = [(1, 4, 2), (1, 8, 0), (1, 16, 2), (2, 4, 0), (2, 16, 2), (4, 4, 2), (4, 16, 0)]


@MODELS.register_module()
class Witness(DeiTDataPreprocessor):
    """Writes down a hash of what each virtual process sees."""

    def forward(self, data, training=False):
        data = super().forward(data, training)
        if (iteration := current_iteration()) is not None:
            scores = torch.stack([sample.gt_score for sample in data['data_samples']])
            parts = zip(data['inputs'].split(BATCH), scores.split(BATCH))
            for process, part in zip(iteration.processes, parts, strict=True):
                seen = hashlib.blake2b(b''.join(t.cpu().numpy().tobytes() for t in part), digest_size=8)
                with open(os.environ['SEEN'], 'a') as file:
                    file.write(f'{iteration.step} {process} {seen.hexdigest()}\n')
        return dict(data, inputs=data['inputs'].to(DTYPE))


class OfType(DeiTRunner):
    def build_model(self, model):
        return super().build_model(model).to(DTYPE)


def config(folder, processes, batch, workers, epochs):
    """The demo's, by the recipe of virtual processes."""
    cfg = Config.fromfile(CONFIG)
    narrow = dict(embed_dims=24, num_layers=3, num_heads=2, feedforward_channels=48)
    cfg.merge_from_dict(
        {
            'work_dir': str(folder),
            'model.backbone': dict(arch=narrow, drop_path_rate=0.2),
            'model.head.in_channels': 24,
            'model.train_cfg': dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
            'data_preprocessor': dict(type='Witness', rand_augment=dict(), erasing=0.25),
            'train_cfg': dict(max_epochs=epochs, val_interval=10**6),
            'train_dataloader': dict(
                batch_size=batch,
                num_workers=workers,
                persistent_workers=workers > 0,
                drop_last=True,
                sampler=dict(
                    _delete_=True, type='RepeatedAugmentSampler', processes=PROCESSES, batch_size=BATCH
                ),
            ),
            'default_hooks.global_batch': dict(type='GlobalBatchHook', batch_size=PROCESSES * BATCH),
            'default_hooks.checkpoint.max_keep_ckpts': 2,
            'param_scheduler.0.warmup_epochs': min(1, epochs - 1),
        }
    )
    if processes > 1:
        cfg.launcher = 'pytorch'
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None)
    return cfg


def train(rank, folder, way, epochs, dtype):
    """A process of a training."""
    torch.set_num_threads(1)
    if way[0] > 1:
        meeting = dict(init_method=f'file://{folder}/group', rank=rank, world_size=way[0])
        dist.init_process_group('gloo', **meeting)
        os.environ['LOCAL_RANK'] = '0'
    cfg = config(Path(folder) / 'run', *way, epochs)
    global DTYPE
    DTYPE = getattr(torch, dtype)
    cfg.resume = (Path(folder) / 'run' / 'last_checkpoint').exists()
    OfType.from_cfg(cfg).train()


def start(folder, way, epochs, dtype):
    """The processes of a training."""
    (folder / 'group').unlink(missing_ok=True)
    script = [sys.executable, __file__, '--train']
    log = open(folder / 'log', 'a')
    return [
        subprocess.Popen(
            [*script, json.dumps([rank, str(folder), way, epochs, dtype])],
            env=dict(os.environ, SEEN=str(folder / f'seen-{rank}'), OMP_NUM_THREADS='1'),
            stdout=log,
            stderr=log,
            start_new_session=True,  # with its workers
        )
        for rank in range(way[0])
    ]


def finish(running, folder):
    if any(process.wait() for process in running):
        raise SystemExit((folder / 'log').read_text()[-3000:])


def result(folder, epochs):
    """What was seen, by step and virtual process, and the weights."""
    seen = {}
    for path in folder.glob('seen-*'):
        for line in path.read_text().splitlines():
            step, process, digest = line.split()
            seen.setdefault((int(step), int(process)), set()).add(digest)
    saved = torch.load(folder / 'run' / f'epoch_{epochs}.pth')['state_dict']
    for name, value in saved.items():
        if name.endswith('qkv.bias'):
            value[len(value) // 3 : 2 * len(value) // 3] = 0
    return seen, torch.cat([value.double().flatten() for value in saved.values()])


def compare(own, other):
    """Whether all images are the same, and how far the weights are apart."""
    same = own[0] == other[0] and all(len(digests) == 1 for digests in own[0].values())
    return 'equal' if same else 'DIFFERENT', f'{float((own[1] - other[1]).norm() / other[1].norm()):.1e}'


def lines_in(folder):
    """How often a virtual process has seen its images."""
    return sum(path.read_bytes().count(b'\n') for path in folder.glob('seen-*'))


def soak(folder, kills, epochs, dtype):
    """A training that is killed, and resumed elsewhere."""
    folder.mkdir()
    for _ in range(kills):
        way = random.choice([REFERENCE, *WAYS])
        running = start(folder, way, epochs, dtype)
        # Within three epochs of 22 steps from where it starts.
        until = lines_in(folder) + random.randrange(1, 66 * PROCESSES)
        while lines_in(folder) < until and all(process.poll() is None for process in running):
            time.sleep(0.05)
        if any(process.poll() for process in running):  # it failed by itself
            raise SystemExit((folder / 'log').read_text()[-3000:])
        for process in running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        last = folder / 'run' / 'last_checkpoint'
        kept = Path(last.read_text()).name if last.exists() else 'nothing'
        print(f'killed on {way[0]} x {way[1]}, {way[2]}; kept: {kept}', file=sys.stderr, flush=True)
    finish(start(folder, random.choice(WAYS), epochs, dtype), folder)
    return result(folder, epochs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--train', type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument('--epochs', type=int, default=3, help='of 22 steps')
    parser.add_argument('--kills', type=int, default=0)
    args = parser.parse_args()
    if args.train:
        train(*args.train)
        return
    print('| processes x batch, workers | images and targets | weights, float32 | float64 |')
    print('|---|---|---|---|', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        expected = {}

        def trained(way, dtype):
            at = Path(folder, f'{way}-{dtype}'.replace(' ', ''))
            at.mkdir()
            finish(start(at, way, args.epochs, dtype), at)
            return result(at, args.epochs)

        for way in [REFERENCE] if args.kills else [REFERENCE, *WAYS]:
            cells = []
            for dtype in ('float32', 'float64'):
                found = trained(way, dtype)
                cells.append(compare(found, expected.setdefault(dtype, found)))
            (seen, single), (_, double) = cells
            print(f'| {way[0]} x {way[1]}, {way[2]} | {seen} | {single} | {double} |', flush=True)
        if args.kills:
            found = soak(Path(folder, 'soak'), args.kills, args.epochs, 'float64')
            print(f'| killed {args.kills} times | {" | - | ".join(compare(found, expected["float64"]))} |')


if __name__ == '__main__':
    main()
