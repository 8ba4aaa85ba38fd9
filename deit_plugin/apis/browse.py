"""A picture of what the model sees in training."""

from collections.abc import Mapping, Sequence

import numpy as np
from mmpretrain.structures import DataSample

from ..checkpoints.atomic import write_whole
from ..visualization.figures import contact_sheet, png
from .configs import read_data_config
from .output import check_output
from .training_batches import TrainingBatches

MOST = 400  # images on a sheet


def browse(
    config: str,
    output: str = 'browse.png',
    images: int = 16,
    epoch: int = 0,
    cfg_options: dict | None = None,
    force: bool = False,
) -> dict:
    """Draw the first images of a training as the model sees them, with their labels.

    Args:
        config (str): The config file of the training.
        output (str): The PNG to write. Defaults to ``'browse.png'``.
        images (int): How many, 1 to 400; of as many batches as hold them. Defaults to 16.
        epoch (int): Which one begins with them, counted from 0. Defaults to 0.
        cfg_options (dict, optional): Changes of the config.
        force (bool): Whether to replace ``output``. Defaults to False.

    Returns:
        dict: ``images``, (H, W, 3) uint8 RGB each; ``labels``, of each pairs of a class's name and its
        weight, heaviest first; ``seed``; ``iterations``, the first and the last, counted from 0; and
        ``notes``, where a training draws something else.

    Raises:
        OSError: If there is no such config or no data, or the picture cannot be written.
        ValueError: If an argument is out of range, or the config trains nothing that can be drawn.
    """
    if not 1 <= images <= MOST:
        raise ValueError(f'--images {images} must be 1 to {MOST}')
    output = check_output(output, force, '--output')
    cfg = read_data_config(config, cfg_options)
    seen = TrainingBatches(cfg, epoch)
    pictures: list[np.ndarray] = []
    labels: list[list[tuple[str, float]]] = []
    iterations: list[int] = []
    for iteration, batch in seen:
        iterations.append(iteration)
        added = seen.to_pixels(batch['inputs'])
        pictures += added
        samples = batch['data_samples'] or [None] * len(added)
        labels += [weighted_classes(sample, seen.classes) for sample in samples]
        if len(pictures) >= images:
            break
    notes = list(seen.notes)
    if samples[0] is not None and 'mask' in samples[0]:
        notes.append('The model gets a mask for each image, which is not drawn')
    if len(pictures) < images:
        notes.append(f'The epoch has no more than {len(pictures)} images in its batches: they all are drawn')
    pictures, labels = pictures[:images], labels[:images]
    write_whole(output, png(contact_sheet(pictures, labels)))
    span = iterations[0], iterations[-1]
    return dict(images=pictures, labels=labels, seed=seen.seed, iterations=span, notes=notes)


def weighted_classes(sample: DataSample | None, classes: Sequence[str] | None) -> list[tuple[str, float]]:
    """The classes of a sample and their weights, heaviest first.

    Args:
        sample (DataSample, optional): With ``gt_score``, else with ``gt_label``; None has no class.
        classes (Sequence[str], optional): Their names. Defaults to their numbers.
    """
    scores: Mapping[int, float] = {}
    if sample is not None and 'gt_score' in sample:
        scores = {i: score for i, score in enumerate(sample.gt_score.tolist()) if score > 0}
    elif sample is not None and 'gt_label' in sample:
        scores = dict.fromkeys(sample.gt_label.tolist(), 1.0)
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    return [(classes[i] if classes and i < len(classes) else str(i), weight) for i, weight in ordered]
