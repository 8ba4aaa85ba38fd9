"""The paper's table 3 (arXiv 2012.12877) in miniature, on real digits.

    python tests/benchmarks/digits_ablation.py --plot digits.png

takes 5 % of the labels (73 images). For each seed it trains a convolutional
teacher on them, then the student of the demo on the same images in each way
that the table has. It prints the top-1 accuracy on the 360 test images after
the last epoch, and the gain over the student without a teacher, seed by seed.
An hour on 2 busy cores; `--results FILE` lets a run that was cut go on.

`--fraction 1` trains on all 1,437 images, as the demo does: its crops, its
teacher, 50 epochs.
"""

import argparse
import contextlib
import json
import os
import os.path as osp
import tempfile
from collections.abc import Iterator

import numpy as np
import torch
import torch.multiprocessing as mp
from mmengine.config import Config
from mmengine.runner import Runner

CONFIGS = osp.join(osp.dirname(osp.abspath(__file__)), '..', '..', 'configs')
READINGS = dict(cls='class head', dist='distillation head', mean='both, fused')
BASELINE = 'no distillation'
MILD = "no distillation, the teacher's crops"

# With few images: the recipe's mixing, and its crops for the student. A convolution learns well from
# milder crops, and then tells the student what is left of a digit in a small one.
BATCH_SIZE = 36
MIXING = dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)])
TEACHER_CROPS = (0.7, 1.0)
TEACHER = dict(
    type='TimmClassifier',
    model_name='resnet18',
    num_classes=10,
    channels=[16, 32, 64, 64],
    output_stride=8,
    loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    data_preprocessor=dict(num_classes=10, mean=[77.9] * 3, std=[95.9] * 3, to_rgb=False),
)


def plain_config() -> Config:
    return Config.fromfile(osp.join(CONFIGS, 'deit_digits.py'))


def distilled_config(**loss) -> Config:
    cfg = Config.fromfile(osp.join(CONFIGS, 'deit_digits_distilled.py'))
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
    BASELINE: plain_config,
    'soft, on the class token': lambda: without_token(mode='soft', tau=3.0, alpha=0.1),
    'hard, on the class token': lambda: without_token(mode='hard'),
    'hard, on the token': lambda: distilled_config(mode='hard'),
}


def use_few_images(cfg: Config, seed: int, args: argparse.Namespace, crops: tuple):
    """Train on the seed's part of the images, cropped and mixed."""
    loader = cfg.train_dataloader
    loader.batch_size, loader.drop_last = BATCH_SIZE, True
    loader.dataset.update(fraction=args.fraction, fraction_seed=seed)
    loader.dataset.pipeline[0].crop_ratio_range = crops
    cfg.model.train_cfg = MIXING


def fit(cfg: Config, seed: int, epochs: int, folder: str) -> Runner:
    """Train in silence, on one thread."""
    cfg.update(work_dir=tempfile.mkdtemp(dir=folder), randomness=dict(seed=seed), log_level='ERROR')
    cfg.experiment_name = osp.basename(cfg.work_dir)
    cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.num_workers, loader.persistent_workers = 0, False
    cfg.default_hooks.checkpoint = None  # else mmengine's own saves every epoch
    cfg.default_hooks.pop('curves')
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner


def top1(runner: Runner) -> float:
    return runner.val_loop.run()['accuracy/top1']


def train_teacher(seed: int, args: argparse.Namespace, folder: str) -> tuple[dict, float]:
    """Its config, with a checkpoint, and its accuracy."""
    cfg = plain_config()
    cfg.model = TEACHER
    use_few_images(cfg, seed, args, TEACHER_CROPS)
    runner = fit(cfg, seed, args.teacher_epochs, folder)
    checkpoint = osp.join(folder, 'teacher.pth')
    torch.save(dict(state_dict=runner.model.state_dict()), checkpoint)
    return dict(TEACHER, checkpoint=checkpoint), top1(runner)


def configs(seed: int, args: argparse.Namespace, teacher: dict | None) -> Iterator[tuple[str, Config]]:
    """What the student is trained with, by the name of the row."""
    for way, config in WAYS.items():
        cfg = config()
        if teacher is not None:
            use_few_images(cfg, seed, args, (args.crop, 1.0))
            if way != BASELINE:
                cfg.model.teacher = teacher
                # As the paper writes it; the reference's code divides by the classes too.
                cfg.model.head.loss.soft_reduction = 'batchmean'
        yield way, cfg
    if teacher is not None:
        cfg = plain_config()
        use_few_images(cfg, seed, args, TEACHER_CROPS)
        yield MILD, cfg


def train_seed(job: tuple) -> tuple[int, dict]:
    """The accuracy of each row."""
    seed, args = job
    torch.set_num_threads(1)
    rows, teacher = {}, None
    with (
        tempfile.TemporaryDirectory() as folder,
        open(os.devnull, 'w') as null,
        contextlib.redirect_stdout(null),
        contextlib.redirect_stderr(null),
    ):
        if args.fraction < 1:
            teacher, rows['teacher'] = train_teacher(seed, args, folder)
        for way, cfg in configs(seed, args, teacher):
            runner = fit(cfg, seed, args.epochs, folder)
            head = runner.model.head
            for reading, name in READINGS.items() if hasattr(head, 'prediction') else [('', '')]:
                head.prediction = reading
                rows[f'{way}: {name}' if name else way] = top1(runner)
    return seed, rows


def load_results(path: str | None, setting: dict) -> dict:
    """The rows by seed of an earlier run with the same options."""
    if path is None or not osp.exists(path):
        return {}
    with open(path) as file:
        saved = json.load(file)
    if saved['setting'] != setting:
        raise SystemExit(f'{path} is of other options: {saved["setting"]}')
    return {int(seed): rows for seed, rows in saved['rows'].items()}


def save_results(path: str | None, setting: dict, results: dict):
    if path is not None:
        with open(path, 'w') as file:
            json.dump(dict(setting=setting, rows=results), file, indent=1)


def as_columns(results: dict) -> dict[str, np.ndarray]:
    """The accuracies of each row, in the order of the seeds."""
    seeds = sorted(results)
    return {name: np.array([results[seed][name] for seed in seeds]) for name in results[seeds[0]]}


def standard_deviation(values: np.ndarray) -> float:
    return values.std(ddof=1) if len(values) > 1 else 0.0


def print_table(columns: dict[str, np.ndarray], title: str):
    print(f'\n{title}\n\n| what supervises what | top-1 | gain, by seed | seeds with a gain |')
    print('|---|---|---|---|')
    for name, values in columns.items():
        gain, number = values - columns[BASELINE], len(values)
        error = standard_deviation(gain) / number**0.5
        gains = f'{gain.mean():+.2f} ± {error:.2f} | {(gain > 0).sum()} of {number}'
        spread = f'{values.mean():.2f} ± {standard_deviation(values):.2f}'
        print(f'| {name} | {spread} | {"- | -" if name == BASELINE else gains} |')
    print('\ntop-1: mean ± standard deviation; gain: mean ± standard error.')


def draw(axis, rows: list[np.ndarray], colors: list[str], spread):
    """The mean with its spread; under it a dot for each seed."""
    for place, (values, color) in enumerate(zip(rows, colors)):
        heights = place + 0.26 + 0.08 * (-1) ** np.arange(len(values))
        axis.scatter(values, heights, s=14, color=color, alpha=0.5, linewidths=0)
        axis.errorbar(values.mean(), place, xerr=spread(values), fmt='D', color=color, capsize=4, mec='white')
    axis.grid(axis='x', alpha=0.3)
    axis.spines[['top', 'right']].set_visible(False)


def plot(columns: dict[str, np.ndarray], title: str, path: str):
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    shades = {'teacher': '#888888', MILD: '#888888', BASELINE: '#333333'}
    colors = [shades.get(name, '#1f77b4' if 'hard' in name else '#d9730d') for name in columns]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), sharey=True, layout='constrained')
    draw(left, list(columns.values()), colors, standard_deviation)
    gains = [values - columns[BASELINE] for values in columns.values()]
    draw(right, gains, colors, lambda values: standard_deviation(values) / len(values) ** 0.5)
    right.axvline(0, color='#333333', linewidth=1)
    left.set_yticks(range(len(columns)), list(columns))
    left.invert_yaxis()
    left.set_xlabel('top-1 accuracy, %\n(dots: seeds; bar: standard deviation)')
    right.set_xlabel('gain over no distillation, same seed, points\n(dots: seeds; bar: standard error)')
    figure.suptitle(title, fontsize=11)
    os.makedirs(osp.dirname(osp.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=130)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--fraction', type=float, default=0.05, help='of the labels, up to 1 (the demo)')
    parser.add_argument('--seeds', type=int, default=10)
    parser.add_argument('--epochs', type=int, help='of the student: 500, or 50 with all labels')
    parser.add_argument('--teacher-epochs', type=int, default=200, help='with few labels')
    parser.add_argument('--crop', type=float, default=0.08, help='least area of a crop, with few labels')
    parser.add_argument('--processes', type=int, default=os.cpu_count())
    parser.add_argument('--results', help='JSON file; a run that was cut goes on from it')
    parser.add_argument('--plot', help='PNG file to draw the table in')
    args = parser.parse_args()
    if not 0.03 <= args.fraction <= 1:
        parser.error('--fraction must be in [0.03, 1]: with less there is no full batch')
    args.epochs = args.epochs or (50 if args.fraction == 1 else 500)
    if min(args.epochs, args.teacher_epochs) < 6:
        parser.error('--epochs and --teacher-epochs must be at least 6: the warm-up of the demo takes 5')
    return args


def main():
    args = parse()
    setting = {name: getattr(args, name) for name in ('fraction', 'epochs', 'teacher_epochs', 'crop')}
    results = load_results(args.results, setting)
    jobs = [(seed, args) for seed in range(args.seeds) if seed not in results]
    with mp.get_context('spawn').Pool(args.processes) as pool:
        for seed, rows in pool.imap_unordered(train_seed, jobs):
            results[seed] = rows
            save_results(args.results, setting, results)
            print(f'[{len(results)}/{args.seeds}] seed {seed}: {rows}', flush=True)

    columns = as_columns(results)
    title = f'Digits, {args.fraction:.0%} of the labels, {args.epochs} epochs, {len(results)} seeds'
    print_table(columns, title)
    if args.plot:
        plot(columns, title, args.plot)


if __name__ == '__main__':
    main()
