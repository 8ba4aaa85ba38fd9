"""Batches as a worker sends them."""

from collections.abc import Sequence

import torch
from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from mmpretrain.structures import DataSample
from torch.utils.data import get_worker_info


@FUNCTIONS.register_module()
def labels_collate(samples: Sequence[dict] | dict) -> dict:
    """Batch images and labels, for training with :class:`DeiTDataPreprocessor`, which makes the samples.

    A ``DataSample`` for each image takes the main process some time to receive, and a file descriptor for
    its label. What is neither image nor label, such as the path, is left out.

    Args:
        samples (Sequence[dict] | dict): B times ``inputs`` (C, H, W) and ``data_samples``, as of
            ``PackInputs``; or a batch that the data set has filled, which stays as it is.

    Returns:
        dict: ``inputs`` (B, C, H, W) and ``labels`` (B, ), int64; as mmengine's ``default_collate`` where an
        image has no label, several, or scores.
    """
    if isinstance(samples, dict):
        return samples
    labels = [_label(sample) for sample in samples]
    if any(label is None for label in labels):
        return default_collate(samples)
    inputs = torch.utils.data.default_collate([sample['inputs'] for sample in samples])
    return dict(inputs=inputs, labels=torch.cat(labels))


def empty_to_send(*shape: int) -> torch.Tensor:
    """An uint8 array for a part of a batch; a worker shares its memory, so that it is sent without a copy."""
    array = torch.empty(shape, dtype=torch.uint8)
    return array if get_worker_info() is None else array.share_memory_()


def _label(sample: dict) -> torch.Tensor | None:
    packed = sample.get('data_samples')
    if sample.keys() != {'inputs', 'data_samples'} or not isinstance(packed, DataSample):
        return None
    if 'gt_score' in packed or 'mask' in packed or len(packed.get('gt_label', ())) != 1:
        return None
    return packed.gt_label
