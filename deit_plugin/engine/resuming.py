"""Whether a training can go on from a checkpoint, before anything of it is taken."""

import math
from collections.abc import Iterable, Mapping, MutableMapping
from numbers import Real

import numpy as np
import torch
import torch.nn as nn
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper

from ..checkpoints.contents import check_weights
from ..messages import shown, some

_LARGEST_SEED = 2**32


def check_resumable(checkpoint: Mapping, runner, model: nn.Module):
    """Refuse what ``--resume`` would fail of, or would train on with values that are no numbers.

    Args:
        checkpoint (Mapping): As it was read.
        runner (Runner): Of the training, its optimizer and schedules built.
        model (nn.Module): Its model, without wrappers.

    Raises:
        ValueError: If the place in the training, the logs, the optimizer, the schedules, the moving
            average or kept gradients are not those of such a training.
    """
    if problem := next(_problems(checkpoint, runner, model), None):
        raise ValueError(
            f'The checkpoint cannot be resumed: {problem}. It may serve to start a training from: '
            '`load_from`, without --resume'
        )


def _problems(checkpoint: Mapping, runner, model: nn.Module) -> Iterable[str]:
    yield from _of_place(checkpoint.get('meta'))
    yield from _of_logs(checkpoint.get('message_hub'))
    if 'optimizer' in checkpoint and isinstance(runner.optim_wrapper, OptimWrapper):
        yield from _of_optimizer(checkpoint['optimizer'], runner.optim_wrapper)
    if 'param_schedulers' in checkpoint and isinstance(runner.param_schedulers, list):
        yield from _of_schedules(checkpoint['param_schedulers'], runner.param_schedulers)
    shapes = {name: value.shape for name, value in model.named_parameters()}
    for part in ('ema_state_dict', 'gradients'):
        if part in checkpoint:
            yield from _of_weights(checkpoint[part], shapes, part)


def _of_place(meta) -> Iterable[str]:
    if not isinstance(meta, MutableMapping):
        yield 'it has no `meta`, where its epoch and iteration are'
        return
    for name in ('epoch', 'iter'):
        value = meta.get(name)
        if type(value) is not int or value < 0:
            yield f'its {name} is {shown(value)}'
    seed = meta.get('seed')
    if seed is not None and not (type(seed) is int and 0 <= seed < _LARGEST_SEED):
        yield f'its seed is {shown(seed)}'


def _of_logs(hub) -> Iterable[str]:
    parts = ('log_scalars', 'runtime_info', 'resumed_keys')
    if not isinstance(hub, dict) or not all(isinstance(hub.get(part), dict) for part in parts):
        yield 'it has no logs (`message_hub`)'
        return
    for name, log in hub['log_scalars'].items():
        if isinstance(log, HistoryBuffer) and not _is_sound(log):
            yield f'its log of {shown(name)} is damaged'


def _is_sound(log: HistoryBuffer) -> bool:
    values, counts = vars(log).get('_log_history'), vars(log).get('_count_history')
    return (
        isinstance(values, np.ndarray)
        and isinstance(counts, np.ndarray)
        and values.ndim == 1
        and values.shape == counts.shape
        and type(vars(log).get('max_length')) is int
        and all(map(callable, log._statistics_methods.values()))
    )


def _of_optimizer(given, wrapper) -> Iterable[str]:
    if not isinstance(given, dict) or not isinstance(given.get('state'), dict):
        yield 'its optimizer has no `state`'
        return
    own = {name: value for name, value in wrapper.state_dict().items() if name != 'state'}
    yield from _differences(own, given, 'optimizer')
    parameters = [p for group in wrapper.param_groups for p in group['params']]
    for index, state in given['state'].items():
        if type(index) is not int or not 0 <= index < len(parameters) or not isinstance(state, dict):
            yield f'its optimizer has a state of {shown(index)}, which is no parameter'
            continue
        for name, value in state.items():
            if not _fits(value, parameters[index]):
                yield f'its optimizer has an odd {shown(name)} of the parameter {index}'


def _of_schedules(given, schedulers: list) -> Iterable[str]:
    own = [scheduler.state_dict() for scheduler in schedulers]
    yield from _differences(own, given, 'param_schedulers')
    for known, state in zip(own, given):
        if unknown := state.keys() - known.keys():  # each becomes an attribute
            yield f'its param_schedulers have {some(map(shown, unknown))}, which are not known here'


def _fits(value, parameter: torch.Tensor) -> bool:
    """Whether something is a state of a parameter: a number, or finite values of its shape."""
    if not isinstance(value, torch.Tensor):
        return value is None or isinstance(value, Real) and math.isfinite(value)
    if value.layout != torch.strided or value.device.type == 'meta' or value.is_complex():
        return False
    fits = value.numel() == 1 or value.shape == parameter.shape
    return fits and bool(torch.isfinite(value).all())


def _of_weights(given, shapes: Mapping, part: str) -> Iterable[str]:
    if not isinstance(given, Mapping):
        yield f'its {part} is a {type(given).__name__}'
        return
    try:
        check_weights(given, part, integers=given)
    except ValueError as error:
        yield str(error)
        return
    named = {str(name).removeprefix('module.'): value.shape for name, value in given.items()}
    if wrong := [name for name, shape in named.items() if shapes.get(name, shape) != shape]:
        yield f'its {part} has other shapes of {some(wrong)}'


def _differences(own, given, path: str) -> Iterable[str]:
    """Where values from a file are of another kind than a training's own."""
    if isinstance(own, torch.Tensor):
        if not _fits(given, own):
            yield f'its {path} is {shown(given)}'
    elif isinstance(own, Real):
        if not (given is None or isinstance(given, Real) and math.isfinite(given) >= math.isfinite(own)):
            yield f'its {path} is {shown(given)}'
    elif isinstance(own, dict):
        if not isinstance(given, dict):
            yield f'its {path} is a {type(given).__name__}'
        else:
            for key in own.keys() & given.keys():
                yield from _differences(own[key], given[key], f'{path}.{key}')
    elif isinstance(own, (list, tuple)):
        if not isinstance(given, (list, tuple)) or len(given) != len(own):
            yield f'its {path} has not the {len(own)} entries that it has here'
        else:
            for i, pair in enumerate(zip(own, given)):
                yield from _differences(*pair, f'{path}.{i}')
    elif own is not None and given is not None and type(given) is not type(own):
        yield f'its {path} is {shown(given)}'
