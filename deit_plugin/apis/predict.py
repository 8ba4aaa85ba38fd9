"""Predictions for images, from a checkpoint alone."""

import glob
import json
import os
import os.path as osp
import sys
from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.dataset import Compose
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.models import BaseClassifier
from mmpretrain.registry import TRANSFORMS

from ..checkpoints.atomic import write_whole
from ..checkpoints.contents import weights_of
from ..checkpoints.recorded import config_of, meta_of, recorded_classes
from ..checkpoints.strict import load_strict
from ..models.dual_logits import fuse
from ..models.recorded import (
    build_classifier,
    num_classes_of_config,
    num_classes_of_weights,
    recorded_model,
    recorded_pipeline,
    set_num_classes,
)
from ..models.two_heads import two_heads
from .configs import named_config, type_name
from .image_list import EXTENSIONS
from .output import check_output


class Predictor:
    """A classifier with its preparation of images and the names of its classes.

    Args:
        checkpoint (str): A file, a folder or an address. A work folder gives its best checkpoint.
        config (str, optional): The name of a variant, or a config file. Without one the checkpoint must
            record its config, as mmengine's do; it is parsed, never run.
        device (str, optional): Defaults to an accelerator if there is one.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the model cannot be told, or the checkpoint does not fill it.
    """

    def __init__(self, checkpoint: str, config: str | None = None, device: str | None = None):
        read = CheckpointLoader.load_checkpoint(checkpoint, 'cpu', logger='silent')
        weights, meta = weights_of(read, checkpoint), meta_of(read)
        if config is None:
            recorded = config_of(meta)
            model, pipeline = recorded_model(recorded, weights, checkpoint), recorded_pipeline(recorded)
        else:
            cfg = named_config(config)
            model, pipeline = dict(cfg.model), cfg.test_dataloader.dataset.pipeline
            model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
            model.pop('teacher', None), model.pop('teacher_labels', None)
            if number := num_classes_of_weights(model, weights):
                set_num_classes(model, number)
        self.model: BaseClassifier = build_classifier(model)
        load_strict(self.model, checkpoint)
        self.device = torch.device(device or get_device())
        self.model.to(self.device).eval()
        self.classes = _class_names(meta, num_classes_of_config(model) or 0)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            steps = [step for step in pipeline if not type_name(step).startswith('LoadImage')]
            self.pipeline = Compose([TRANSFORMS.build(step) for step in (dict(type='LoadImage'), *steps)])
        self.steps = [dict(step, type=type_name(step)) for step in steps]

    def prepare(self, paths: Sequence[str]) -> torch.Tensor:
        """Images (B, 3, H, W), as the model takes them.

        Raises:
            OSError: If one is broken or is not there.
        """
        samples = [self.pipeline(dict(img_path=path))['inputs'] for path in paths]
        data = dict(inputs=samples, data_samples=None)
        return self.model.data_preprocessor(data, training=False)['inputs'].to(self.device)

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each (B, K): of the ``prediction`` and, with two classifiers, of ``class_head`` and
        ``distillation_head``."""
        dual = two_heads(self.model)
        if dual is None:
            return dict(prediction=self.model(images, mode='tensor').softmax(dim=1))
        cls, dist = dual.dual_logits(images)
        logits = dict(prediction=fuse(cls, dist, dual.prediction), class_head=cls, distillation_head=dist)
        return {name: value.softmax(dim=1) for name, value in logits.items()}


def _class_names(meta: Mapping, number: int) -> list[str]:
    if names := recorded_classes(meta, number):
        return names
    return (
        list(IMAGENET_CATEGORIES) if number == len(IMAGENET_CATEGORIES) else [str(i) for i in range(number)]
    )


def find_images(patterns: Sequence[str]) -> list[str]:
    """The image files that are named: files, folders and all below them, and globs.

    Raises:
        FileNotFoundError: If one of the names leads to no image.
    """
    found: list[str] = []
    for pattern in patterns:
        names = [pattern] if osp.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        images = [path for name in names for path in _below(name)]
        if not images:
            raise FileNotFoundError(f'{pattern!r} is no image, no folder with images and no pattern of such')
        found += images
    return list(dict.fromkeys(found))


def _below(path: str) -> Iterator[str]:
    if osp.isfile(path):
        yield path
        return
    for parent, folders, files in os.walk(path):
        folders.sort()
        yield from (osp.join(parent, name) for name in sorted(files) if name.lower().endswith(EXTENSIONS))


def predict(
    checkpoint: str,
    images: Sequence[str],
    config: str | None = None,
    top: int = 5,
    batch_size: int = 32,
    output: str | None = None,
    force: bool = False,
    device: str | None = None,
) -> list[dict]:
    """Classify images, and print a table.

    Args:
        checkpoint (str): As for :class:`Predictor`.
        images (Sequence[str]): Files, folders or globs.
        config (str, optional): As for :class:`Predictor`.
        top (int): How many classes to show, at least 1. Defaults to 5.
        batch_size (int): Images at once. Defaults to 32.
        output (str, optional): A file for the results as JSON.
        force (bool): Whether to replace that file. Defaults to False.
        device (str, optional): As for :class:`Predictor`.

    Returns:
        list[dict]: For each image ``image`` and ``classes``, a list of the likeliest with ``name`` and the
        probabilities of :meth:`Predictor.probabilities`; or ``image`` and ``error``.

    Raises:
        FileNotFoundError: If an image or the checkpoint is not there.
        ValueError: If an argument is out of range, or the model cannot be told.
    """
    if top < 1 or batch_size < 1:
        raise ValueError(f'--top {top} and --batch-size {batch_size} must be at least 1')
    paths = find_images(images)
    if output:
        output = check_output(output, force)
    predictor = Predictor(checkpoint, config, device)
    results = []
    for start in range(0, len(paths), batch_size):
        results += _predict_batch(predictor, paths[start : start + batch_size], top)
    print(table(results))
    if output:
        write_whole(output, json.dumps(results, indent=2).encode())
    return results


def _predict_batch(predictor: Predictor, paths: Sequence[str], top: int) -> list[dict]:
    results, sound, images = [], [], []
    for path in paths:
        result: dict = dict(image=path)
        try:
            images.append(predictor.prepare([path]))
            sound.append(result)
        except OSError as error:  # the others are classified all the same
            result['error'] = str(error)
            print(f'deit-plugin: {error}', file=sys.stderr)
        results.append(result)
    if not images:
        return results
    batches = [torch.cat(images)] if len({image.shape for image in images}) == 1 else images
    answers = [predictor.probabilities(batch) for batch in batches]
    heads = {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}
    order = heads['prediction'].topk(min(top, len(predictor.classes)), dim=1).indices
    for row, result in enumerate(sound):
        result['classes'] = [
            dict(name=predictor.classes[i], **{name: value[row, i].item() for name, value in heads.items()})
            for i in order[row].tolist()
        ]
    return results


def table(results: Sequence[dict]) -> str:
    """The results of :func:`predict` for a terminal: percent, the likeliest class first."""
    lines = []
    for result in results:
        lines.append(result['image'])
        if 'error' in result:
            lines.append('  (could not be read)')
            continue
        width = max(len(found['name']) for found in result['classes'])
        heads = [name for name in result['classes'][0] if name != 'name']
        lines.append(f'  {"":{width}}' + ''.join(f'{name.replace("_", " "):>19}' for name in heads))
        for found in result['classes']:
            values = ''.join(f'{100 * found[name]:18.1f}%' for name in heads)
            lines.append(f'  {found["name"]:{width}}{values}')
    return '\n'.join(lines)
