"""Strict loading: every parameter, and no other."""

import re

import torch.nn as nn
from mmengine.runner import CheckpointLoader

from .contents import check_weights, counted, weights_of


def load_strict(model: nn.Module, filename: str):
    """Fill every parameter of a model from a checkpoint.

    Args:
        model (nn.Module): A classifier of mmpretrain.
        filename (str): Whatever mmengine's ``CheckpointLoader`` opens; into a :class:`DeiT` with the
            names of any library.

    Raises:
        ValueError: If a parameter is missing, has another shape, or is not of the model.
    """
    weights = weights_of(CheckpointLoader.load_checkpoint(filename, 'cpu', logger='silent'), filename)
    integers = {name for name, value in model.state_dict().items() if not value.is_floating_point()}
    integers |= {name.removeprefix('model.') for name in integers}  # a student of timm takes timm's names too
    weights = {re.sub(r'^module\.', '', str(name)): value for name, value in weights.items()}
    check_weights(weights, filename, integers | counted(weights))
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(f'{filename} does not fit the model: {error}') from error
    missing = [name for name in missing if not name.endswith('num_batches_tracked')]
    if missing or unexpected:
        raise ValueError(
            f'{filename} does not fit the model: it lacks {len(missing)} parameters ({missing[:5]}) '
            f'and holds {len(unexpected)} that are not of the model ({unexpected[:5]})'
        )
