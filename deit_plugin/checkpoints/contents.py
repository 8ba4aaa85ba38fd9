"""The layout of checkpoint files: where the weights are."""

from collections.abc import Collection, Mapping

import torch
from mmengine.logging import print_log

from ..messages import shown, some

# mmengine and timm, facebookresearch/deit.
_WEIGHTS = ('state_dict', 'model')
# The moving average in files of timm and of facebookresearch/deit. mmengine has it under
# `state_dict`, where it is read like any weights.
AVERAGES = ('state_dict_ema', 'model_ema')


def weights_of(checkpoint: Mapping, source: str = 'the checkpoint', average: bool = False) -> dict:
    """The state dict in a checkpoint, or the checkpoint itself where it is a bare one.

    Args:
        checkpoint (Mapping): What a file holds.
        source (str): What the file is called, for messages.
        average (bool): Whether to take the moving average that stands beside the weights.

    Raises:
        ValueError: If there are no weights, or no moving average.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{source} holds a {type(checkpoint).__name__}, not a checkpoint or a state dict')
    held = [key for key in AVERAGES if isinstance(checkpoint.get(key), Mapping)]
    if average and not held:
        raise ValueError(f'{source} holds no {" or ".join(AVERAGES)}: leave out --ema')
    if average:
        return dict(checkpoint[held[0]])
    if held:
        print_log(
            f'{source} holds a moving average too ({held[0]}), which is not taken: `deit-plugin '
            'convert --ema` writes it',
            logger='current',
        )
    key = next((key for key in _WEIGHTS if key in checkpoint), None)
    weights = checkpoint if key is None else checkpoint[key]
    if not isinstance(weights, Mapping):
        raise ValueError(f'{source} holds a {type(weights).__name__} under {key!r}, not weights by name')
    if odd := [name for name in weights if not isinstance(name, str)]:
        raise ValueError(f'{source} holds weights whose names are not text: {some(map(shown, odd))}')
    if twice := [name for name in weights if name.startswith('module.') and name[7:] in weights]:
        raise ValueError(f'{source} holds {some(twice)}, and the same without `module.`')
    return dict(weights)


def check_weights(weights: Mapping, source: str = 'The file', integers: Collection[str] = ()) -> None:
    """Refuse what cannot be a weight: every one is a dense floating-point tensor of finite values.

    Half and double precision are weights too, and are cast where they are loaded; the log says so.

    Args:
        weights (Mapping): By name.
        source (str): What the file is called, for messages.
        integers (Collection[str]): Names under which a model has integers, as batch norms count their
            batches.

    Raises:
        ValueError: If a name is not a string, or a value is not a weight; the first few are named.
    """
    wrong, cast = [], set()
    for name, value in weights.items():
        if reason := _not_a_weight(name, value, name in integers):
            wrong.append(f'{name} ({reason})')
        elif value.is_floating_point() and value.dtype != torch.float32:
            cast.add(str(value.dtype).removeprefix('torch.'))
    if wrong:
        raise ValueError(f'{source} holds what is not a weight: {some(wrong)}')
    if cast:
        print_log(f'{source} holds weights in {" and ".join(sorted(cast))}', logger='current')


def counted(weights: Mapping) -> set[str]:
    """The names under which models of other kinds have integers: what norms count, and places of biases."""
    return {name for name in weights if str(name).endswith(('num_batches_tracked', 'bias_idxs'))}


def _not_a_weight(name, value, integer: bool) -> str:
    if not isinstance(name, str):
        return 'its name is not text'
    if not isinstance(value, torch.Tensor):
        return f'it is a {type(value).__name__}'
    if value.layout != torch.strided or value.is_quantized:
        return 'it is not a dense tensor'
    if value.device.type == 'meta':
        return 'it has no values'
    if value.untyped_storage().nbytes() < value.numel() * value.element_size():
        return f'its shape {tuple(value.shape)} is larger than its memory'
    if not value.numel():
        return f'its shape {tuple(value.shape)} has no place for values'
    if integer and not value.is_floating_point():
        return ''
    if not value.is_floating_point() or value.element_size() < 2:
        return str(value.dtype).removeprefix('torch.')
    # As it will be: double precision may be too large for single.
    return '' if torch.isfinite(value.float()).all() else 'it holds NaN or infinity'
