"""The paper's table 3 (arXiv 2012.12877) in miniature, on real digits.

    python tests/benchmarks/digits_ablation.py

trains the student of the demo in each way that the table has, with several
seeds, and prints the top-1 accuracy on the 360 test images after the last
epoch: mean and standard deviation over the seeds. About 24 minutes on 2 cores.
"""

import argparse
import contextlib
import os
import os.path as osp
import tempfile

import numpy as np
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.runner import Runner

CONFIGS = osp.join(osp.dirname(osp.abspath(__file__)), '..', '..', 'configs')
READINGS = dict(cls='class head only', dist='distillation head only', mean='both, fused')


def plain_config() -> Config:
    return Config.fromfile(osp.join(CONFIGS, 'deit_digits.py'))


def distilled_config(**loss) -> Config:
    cfg = Config.fromfile(osp.join(CONFIGS, 'deit_digits_distilled.py'))
    del cfg.model.teacher_labels  # they are of one seed
    cfg.model.head.loss.update(loss)
    return cfg


def without_token(**loss) -> Config:
    """The teacher on the class token of a plain DeiT."""
    cfg, plain = distilled_config(distill_on='cls', **loss), plain_config()
    loss = cfg.model.head.loss
    cfg.model.backbone, cfg.model.neck = plain.model.backbone, None
    cfg.model.head = plain.model.head
    cfg.model.head.loss = loss
    return cfg


WAYS = {
    'no distillation': plain_config,
    'soft, on the class token (tau 3, alpha .1)': lambda: without_token(mode='soft', tau=3.0, alpha=0.1),
    'hard, on the class token': lambda: without_token(mode='hard'),
    'hard, on the distillation token': lambda: distilled_config(mode='hard'),
}


def train(way: str, seed: int, epochs: int) -> dict:
    """The accuracy of each reading after the last epoch."""
    torch.set_num_threads(1)
    cfg = WAYS[way]()
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, 'w') as null,
        contextlib.redirect_stdout(null),
        contextlib.redirect_stderr(null),
    ):
        cfg.update(
            work_dir=folder,
            randomness=dict(seed=seed),
            log_level='ERROR',
            experiment_name=osp.basename(folder),
        )
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
        cfg.train_dataloader.num_workers = cfg.val_dataloader.num_workers = 0
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.persistent_workers = False
            loader.collate_fn = dict(type='default_collate')
        cfg.default_hooks.pop('checkpoint')
        runner = Runner.from_cfg(cfg)
        runner.train()
        head, results = runner.model.head, {}
        for reading in READINGS if hasattr(head, 'prediction') else ['']:
            head.prediction = reading
            results[reading] = runner.val_loop.run()['accuracy/top1']
    return results


def run(job: tuple) -> tuple:
    return job, train(*job)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--epochs', type=int, default=50)
    parser.add_argument('--processes', type=int, default=os.cpu_count())
    args = parser.parse_args()
    if args.epochs < 6:
        parser.error('--epochs must be at least 6: the warm-up of the demo takes 5')
    jobs = [(way, seed, args.epochs) for seed in range(args.seeds) for way in WAYS]
    accuracy = {}
    with mp.get_context('spawn').Pool(args.processes) as pool:
        for done, ((way, seed, _), results) in enumerate(pool.imap_unordered(run, jobs), 1):
            print(f'[{done}/{len(jobs)}] {way}, seed {seed}: {results}', flush=True)
            for reading, value in results.items():
                accuracy.setdefault((way, reading), []).append(value)

    print(f'\n| what supervises what | top-1, {args.seeds} seeds, {args.epochs} epochs |\n|---|---|')
    for way in WAYS:
        for reading in ('', *READINGS):
            if (way, reading) in accuracy:
                values = np.array(accuracy[way, reading])
                name = f'{way}: {READINGS[reading]}' if reading else way
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                print(f'| {name} | {values.mean():.2f} ± {spread:.2f} |')


if __name__ == '__main__':
    main()
