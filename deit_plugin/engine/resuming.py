"""Whether a training can go on from a checkpoint, before anything of it is taken."""

import logging
from collections.abc import Iterator, Mapping
from numbers import Real

import torch
import torch.nn as nn
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop

from ..checkpoints.contents import check_weights
from ..messages import shown, some

_LARGEST_SEED = 2**32
# Of a group of parameters what a training changes; the rest is the config's.
_CHANGING = ('lr', 'initial_lr', 'params')
# How far a schedule of mmengine got; the rest is what it is.
_PROGRESS = ('last_step', '_global_step', '_last_value', 'num_bad_steps', 'cooldown_counter', 'best')


def check_resumable(checkpoint: dict, runner, model: nn.Module):
    """Refuse what ``--resume`` would fail of, or would train on with half a state.

    Of the schedules only how far they got is taken, and of the optimizer its rate and its state: what they
    are is the config's.

    Args:
        checkpoint (dict): As it was read.
        runner (Runner): Of the training, its optimizer and schedules built.
        model (nn.Module): Its model, without wrappers.

    Raises:
        ValueError: If the place in the training, the logs, the optimizer, the schedules, the moving
            average or kept gradients are not those of such a training.
    """
    fit_place(checkpoint, runner)
    if problem := next(_problems(checkpoint, runner, model), None):
        raise ValueError(
            f'The checkpoint cannot be resumed: {problem}. It may serve to start a training from: '
            '`load_from`, without --resume'
        )
    if isinstance(runner.param_schedulers, list):
        for given in checkpoint['param_schedulers']:
            for name in given.keys() - set(_PROGRESS):
                del given[name]
    if isinstance(runner.optim_wrapper, OptimWrapper) and 'optimizer' in checkpoint:
        own = runner.optim_wrapper.state_dict()
        for known, group in zip(own['param_groups'], checkpoint['optimizer']['param_groups']):
            group.update({name: value for name, value in known.items() if name not in _CHANGING})
        checkpoint['optimizer'].pop('base_param_settings', None)
        if 'base_param_settings' in own:
            checkpoint['optimizer']['base_param_settings'] = own['base_param_settings']


def fit_place(checkpoint: dict, runner):
    """Count the iterations of a checkpoint as those of this run, which may have another batch; once.

    A loop by epochs begins the epoch anew in which it was saved; mmengine keeps the iterations, and so
    steps and draws that do not belong to the images.

    Args:
        checkpoint (dict): As it was read; changed in place.
        runner (Runner): Of the training, which is resumed.

    Raises:
        ValueError: If it was saved amid a step, and here others make one.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    count = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
    done, epoch, before = meta.get('iter'), meta.get('epoch'), meta.get('accumulated', count)
    if not all(type(number) is int and number >= 0 for number in (done, epoch, before)) or not before:
        return  # refused later
    steps, amid = divmod(done, before)
    meta['accumulated'] = count
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        here = meta['iter'] = epoch * len(runner.train_dataloader)
        if done * count != here * before:
            checkpoint.pop('gradients', None)
            text = (
                f'The checkpoint is of iteration {done}, and {epoch} epochs have {here} here: the epoch '
                f'{epoch + 1} begins anew'
            )
            print_log(text, 'current', logging.WARNING)
            return  # schedules by iteration have no rate for another place
    elif amid and before != count:
        raise ValueError(
            f'The checkpoint was saved after {done} iterations, of which {before} make a step: resume it '
            'on as many processes and with the batch that it had'
        )
    else:
        here = meta['iter'] = steps * count + amid
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    states = checkpoint.get('param_schedulers')
    for scheduler, state in zip(schedulers, states if isinstance(states, list) else ()):
        if not scheduler.by_epoch and isinstance(state, dict) and state.get('last_step') == done:
            state.update(last_step=here, _global_step=here + 1)


def _problems(checkpoint: dict, runner, model: nn.Module) -> Iterator[str]:
    yield from _of_place(checkpoint.get('meta'), runner)
    yield from _of_logs(checkpoint.get('message_hub'))
    if isinstance(runner.optim_wrapper, OptimWrapper):
        if 'optimizer' in checkpoint:
            done = checkpoint['meta']['iter']
            yield from _of_optimizer(checkpoint['optimizer'], runner.optim_wrapper, done)
        elif not any(isinstance(h, CheckpointHook) and not h.save_optimizer for h in runner.hooks):
            yield 'it has no optimizer, as the best checkpoint has none: resume the last one'
    if isinstance(runner.param_schedulers, list):
        yield from _of_schedules(checkpoint.get('param_schedulers'), runner.param_schedulers)
    if 'ema_state_dict' in checkpoint:
        own = {f'module.{name}': value.shape for name, value in model.state_dict().items()}
        yield from _of_average(checkpoint['ema_state_dict'], {**own, 'steps': torch.Size()})
    if 'gradients' in checkpoint:
        own = {name: value.shape for name, value in model.named_parameters()}
        yield from _of_weights(checkpoint['gradients'], own, 'gradients')


def _of_place(meta, runner) -> Iterator[str]:
    if not isinstance(meta, dict):
        yield 'it has no `meta`, where its epoch and iteration are'
        return
    for name, last in (('epoch', runner.max_epochs), ('iter', runner.max_iters)):
        value = meta.get(name)
        if type(value) is not int or value < 0:
            yield f'its {name} is {shown(value)}'
        elif value > last:
            yield f'its {name} is {value}, and the training ends at {last}: set `train_cfg` to more'
    seed = meta.get('seed')
    if seed is not None and not (type(seed) is int and 0 <= seed < _LARGEST_SEED):
        yield f'its seed is {shown(seed)}'


def _of_logs(hub) -> Iterator[str]:
    for part in ('log_scalars', 'runtime_info', 'resumed_keys'):
        found = hub.get(part) if isinstance(hub, dict) else None
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
            yield f'it has no logs (`message_hub.{part}`)'
            return
    if not all(isinstance(value, bool) for value in hub['resumed_keys'].values()):
        yield 'its logs are odd (`message_hub.resumed_keys`)'


def _of_optimizer(given, wrapper: OptimWrapper, done: int) -> Iterator[str]:
    groups = given.get('param_groups') if isinstance(given, dict) else None
    if not isinstance(groups, list) or not isinstance(given.get('state'), dict):
        yield 'its optimizer has no `state` and no `param_groups`'
        return
    own = wrapper.state_dict()
    if len(groups) != len(own['param_groups']):
        yield f'its optimizer has {len(groups)} groups of parameters, here are {len(own["param_groups"])}'
    for i, (known, group) in enumerate(zip(own['param_groups'], groups)):
        expected = {name: value for name, value in known.items() if name in _CHANGING}
        yield from _differences(expected, group, f'optimizer.param_groups.{i}')
        if isinstance(group, dict) and group.get('params') != known['params']:
            yield f'its optimizer.param_groups.{i} has other parameters'
    if 'loss_scaler' in given and 'loss_scaler' in own:
        yield from _differences(own['loss_scaler'], given['loss_scaler'], 'optimizer.loss_scaler')
    yield from _of_states(given['state'], wrapper, done)


def _of_states(states: dict, wrapper: OptimWrapper, done: int) -> Iterator[str]:
    parameters = [p for group in wrapper.param_groups for p in group['params']]
    names: set = set()
    for index, state in states.items():
        if type(index) is not int or not 0 <= index < len(parameters) or not isinstance(state, dict):
            yield f'its optimizer has a state of {shown(index)}, which is no parameter'
            return
        names = names or set(state)
        if set(state) != names:
            yield f'its optimizer has another kind of state of the parameter {index}'
        for name, value in state.items():
            if not _is_state(name, value, parameters[index]):
                yield f'its optimizer has an odd {shown(name)} of the parameter {index}'
    if isinstance(wrapper.optimizer, (torch.optim.Adam, torch.optim.AdamW)):
        amsgrad = wrapper.param_groups[0].get('amsgrad')
        expected = {'step', 'exp_avg', 'exp_avg_sq', *(['max_exp_avg_sq'] if amsgrad else [])}
        lacking = sum(p.requires_grad and i not in states for i, p in enumerate(parameters))
        if names and lacking:  # as of one that never had a gradient
            print_log(
                f'The optimizer has no state of {lacking} of {len(parameters)} parameters: it starts anew',
                'current',
                logging.WARNING,
            )
        if names != expected and (names or done >= wrapper._accumulative_counts):
            yield f'its optimizer has {some(names)} of the parameters, not {some(sorted(expected))}'


def _is_state(name, value, parameter: torch.Tensor) -> bool:
    """Whether something is a state of a parameter: the number of steps, or finite values of its shape."""
    if name == 'step':
        return _is_number(value) and float(value) >= 0
    if not isinstance(value, torch.Tensor):
        return value is None and name == 'momentum_buffer'
    fits = value.shape == parameter.shape and value.is_contiguous() and value.is_floating_point()
    if not fits or not torch.isfinite(value.float()).all():
        return False
    return not str(name).endswith('_sq') or bool((value >= 0).all())


def _is_number(value) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and _is_number(value.item())
    return isinstance(value, Real) and abs(value) <= torch.finfo().max  # false of NaN


def _of_schedules(given, schedulers: list) -> Iterator[str]:
    if not isinstance(given, list) or len(given) != len(schedulers):
        yield f'its param_schedulers are not the {len(schedulers)} of the config'
        return
    for i, (scheduler, state) in enumerate(zip(schedulers, given)):
        # Of a plateau the best may be any number, infinity included.
        own = {name: value for name, value in scheduler.state_dict().items() if name in _PROGRESS[:-1]}
        yield from _differences(own, state, f'param_schedulers.{i}')


def _of_average(given, shapes: Mapping) -> Iterator[str]:
    yield from _of_weights(given, shapes, 'ema_state_dict')
    if missing := sorted(shapes.keys() - given.keys()):
        yield f'its ema_state_dict lacks {some(missing)}'


def _of_weights(given, shapes: Mapping, part: str) -> Iterator[str]:
    if not isinstance(given, dict):
        yield f'its {part} is a {type(given).__name__}'
        return
    try:
        check_weights(given, part, integers=given)
    except ValueError as error:
        yield str(error)
        return
    if wrong := [name for name, value in given.items() if shapes.get(name) != value.shape]:
        yield f'its {part} has other shapes or names: {some(wrong)}'


def _differences(own, given, path: str) -> Iterator[str]:
    """Where values from a file are of another kind than a training's own, or where one is missing."""
    if isinstance(own, dict):
        missing = own.keys() - given.keys() if isinstance(given, dict) else own.keys()
        if missing:
            yield f'its {path} lacks {some(sorted(missing))}'
            return
        for key, value in own.items():
            yield from _differences(value, given[key], f'{path}.{key}')
    elif isinstance(own, (list, tuple)):
        if not isinstance(given, (list, tuple)) or len(given) != len(own):
            yield f'its {path} has not the {len(own)} entries that it has here'
            return
        for i, pair in enumerate(zip(own, given)):
            yield from _differences(*pair, f'{path}.{i}')
    elif isinstance(own, bool) or own is None or isinstance(own, str):
        if own != given or type(own) is not type(given):
            yield f'its {path} is {shown(given)}, here it is {own}'
    elif isinstance(given, (bool, torch.Tensor)) or not _is_number(given) or float(given) < 0:
        yield f'its {path} is {shown(given)}'
