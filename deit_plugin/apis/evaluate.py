"""Published and measured accuracy of the variants."""

import fnmatch
import json
import logging
import os.path as osp
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.utils import ProgressBar

from ..checkpoints.atomic import write_whole
from ..engine import FilledModelHook
from ..visualization.report import Answer, Section
from ..visualization.report import report as page
from .evaluated import model_of
from .hub import variants
from .image_list import labels_of, leave_out_broken, list_images
from .output import check_output

METRICS = dict(top1='accuracy/top1', top5='accuracy/top5')


def evaluate(
    names: Sequence[str],
    data: str,
    weights: str | None = None,
    batch_size: int = 64,
    workers: int = 4,
    output: str | None = None,
    force: bool = False,
    skip_broken: bool = False,
    report: str | None = None,
) -> list[dict]:
    """Evaluate variants, and print published and measured figures.

    Args:
        names (Sequence[str]): Variants, patterns of those whose weights are published (``'repvit_*'``), or
            paths of configs; if empty, the model that ``weights`` records if these are of one model, else
            ``'deit_*'``.
        data (str): A folder with one folder of images a class, or with such a
            folder ``val``. The names of the classes' folders are ImageNet's
            (``n01440764``), some of them or all, or there are as many as the
            model has classes, which are then taken in their order.
        weights (str, optional): A file, or a work folder for its best
            checkpoint, of one variant; or a folder in which the weights lie,
            by the published file names or as ``NAME.pth``,
            ``NAME.safetensors``, ``NAME/`` and so on. If None they are
            downloaded.
        batch_size (int): Defaults to 64.
        workers (int): Processes that read images. Defaults to 4.
        output (str, optional): A file for the results as JSON, written anew
            after each variant.
        force (bool): Whether to replace that file. Defaults to False.
        skip_broken (bool): Whether to look for broken images first and leave them out, instead of failing
            at the first. Defaults to False.
        report (str, optional): An HTML file for what was confused, and the most confident mistakes.

    Returns:
        list[dict]: For each name ``name``, ``published`` and ``measured``
        (``top1`` and ``top5``, in percent), ``difference`` of the top-1,
        ``parameters``, ``images``, ``images_per_second`` (reading included)
        and ``weights``, or ``name`` and ``error``; with ``skip_broken`` also ``broken``, a
        line about each image that was left out.

    Raises:
        FileExistsError: If ``output`` exists and is not to be replaced.
        OSError: If ``output`` cannot be written.
        ValueError: If a name is unknown or the folder holds no images.
    """
    output = check_output(output, force) if output else None
    report = check_output(report, force, '--report') if report else None
    if weights and not osp.exists(weights):
        raise FileNotFoundError(f'--weights {weights!r} is not there')
    names = _names(names or [weights if weights and _is_of_one(weights) else 'deit_*'])
    _check_names(names, weights)
    images = list_images(data)
    broken = leave_out_broken(images, workers) if skip_broken else []
    results: list[dict] = []
    sections: list[Section] = []
    for name in names:
        print(f'{name}: {sum(map(len, images.values()))} images', file=sys.stderr)
        result = dict(name=name, broken=broken) if skip_broken else dict(name=name)
        try:
            measured, section = _evaluate_one(name, images, weights, batch_size, workers)
            result.update(measured)
            sections.append(section)
        except Exception as error:  # the others are evaluated all the same
            result['error'] = f'{type(error).__name__}: {error}'
            print(f'{name} failed. {result["error"]}', file=sys.stderr)
        results.append(result)
        if output:
            write_whole(output, json.dumps(results, indent=2).encode())
        if report:
            write_whole(report, page(sections, f'Evaluation on {data}').encode(errors='replace'))
    print(table(results))
    return results


def _is_of_one(weights: str) -> bool:
    """Whether this is a file or the work folder of a training, and not a folder with many."""
    return osp.isfile(weights) or osp.isfile(osp.join(weights, 'last_checkpoint'))


def _names(given: Sequence[str]) -> list[str]:
    """The names, with those that patterns stand for."""
    published = variants(published_weights=True)
    return [name for each in given for name in (fnmatch.filter(published, each) or [each])]


def _check_names(names: Sequence[str], weights: str | None):
    if weights and osp.isfile(weights) and len(names) > 1:
        raise ValueError(f'--weights {weights} is of one model: name one variant, not {len(names)}')
    if unknown := [n for n in names if n not in (*variants(), weights) and not osp.isfile(n)]:
        raise ValueError(
            f'{unknown} are no variants: choose from {", ".join(variants())}, or give a config (.py)'
        )


def table(results: Sequence[dict]) -> str:
    """The results of :func:`evaluate` as a table of Markdown."""
    rows = [
        (
            'variant',
            'published top-1 / top-5',
            'measured top-1 / top-5',
            'difference',
            'parameters',
            'images/s',
        )
    ]
    for result in results:
        if 'error' in result:
            reason = result['error'].strip().splitlines()[-1]
            rows.append((result['name'], f'failed: {reason}', *[''] * 4))
            continue
        difference = result['difference']
        rows.append(
            (
                result['name'],
                _accuracies(result['published'], 1),
                _accuracies(result['measured'], 2),
                '-' if difference is None else f'{difference:+.2f}',
                f'{result["parameters"] / 1e6:.2f}M',
                f'{result["images_per_second"]:.0f}',
            )
        )
    rows.insert(1, ['---'] * len(rows[0]))
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _accuracies(accuracy: dict[str, float], digits: int) -> str:
    return ' / '.join(f'{accuracy[k]:.{digits}f}' if k in accuracy else '-' for k in METRICS)


def _evaluate_one(
    name: str,
    images: dict[str, list[str]],
    folder: str | None,
    batch_size: int,
    workers: int,
) -> tuple[dict, Section]:
    cfg, path, published, num_classes, classes = model_of(name, folder)
    labels = labels_of(list(images), num_classes, classes)
    cfg.load_from = path
    cfg.test_evaluator = dict(type='Accuracy', topk=[k for k in (1, 5) if k <= num_classes])
    cfg.test_dataloader.update(
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=False,
        drop_last=False,
        pin_memory=get_device() != 'cpu',
    )
    rate = Rate(sum(map(len, images.values())))
    model, metrics = _test(cfg, dict(zip(labels, images.values())), rate)
    measured = {key: metrics[metric] for key, metric in METRICS.items() if metric in metrics}
    result = dict(
        published=published,
        measured=measured,
        difference=measured['top1'] - published['top1'] if 'top1' in published else None,
        parameters=sum(p.numel() for p in model.parameters()),
        images=rate.images,
        images_per_second=rate.images / rate.seconds,
        weights=path,
    )
    named = classes or [str(i) for i in range(num_classes)]
    if not classes:
        for label, folder_name in zip(labels, images):
            named[label] = folder_name
    return result, Section(name, f'{path}: {_accuracies(measured, 2)} % top-1 / top-5', named, rate.answers)


def _test(cfg: Config, images: dict[int, list[str]], rate: 'Rate'):
    """Run a test on the images of each label; returns the model and the metrics."""
    # mmengine keeps its loggers by the name of the experiment.
    cfg.update(resume=False, log_level='ERROR', experiment_name=f'evaluate_{uuid.uuid4().hex}')
    with tempfile.TemporaryDirectory() as scratch:
        listing = osp.join(scratch, 'images.txt')
        with open(listing, 'w', encoding='utf-8') as file:
            for label, paths in images.items():
                file.writelines(f'{osp.abspath(p)} {label}\n' for p in paths)
        pipeline = cfg.test_dataloader.dataset.pipeline
        cfg.test_dataloader.dataset = dict(type='ImageFolder', ann_file=listing, pipeline=pipeline)
        cfg.work_dir = scratch
        runner = Runner.from_cfg(cfg)
        runner.register_hook(rate)
        if not any(isinstance(hook, FilledModelHook) for hook in runner.hooks):
            runner.register_hook(FilledModelHook())
        metrics = runner.test()
    for handler in list(runner.logger.handlers):
        if isinstance(handler, logging.FileHandler):  # its file goes with the folder
            handler.close()
            runner.logger.removeHandler(handler)
    return runner.model, metrics


class Rate(Hook):
    """Progress on the terminal, how long a test takes, and what it says of each image.

    Args:
        images (int): How many there are.
    """

    def __init__(self, images: int):
        self.images = images

    def before_test_epoch(self, runner) -> None:
        """Start the clock."""
        self.start = time.perf_counter()
        self.answers: list[Answer] = []
        self.bar = ProgressBar(self.images, file=sys.stderr)

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Count a batch."""
        self.bar.update(len(outputs))
        for sample in outputs:
            confidence, choice = sample.pred_score.max(0)
            self.answers.append(Answer(sample.img_path, int(sample.gt_label), int(choice), float(confidence)))

    def after_test_epoch(self, runner, metrics=None) -> None:
        """Stop the clock."""
        self.seconds = time.perf_counter() - self.start
        print(file=sys.stderr)
