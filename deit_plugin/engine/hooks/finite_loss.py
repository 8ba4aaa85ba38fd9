"""Stops training at a loss that is not finite."""

import torch
from mmengine.hooks import EMAHook, Hook, LoggerHook, RuntimeInfoHook
from mmengine.runner import get_priority
from mmpretrain.registry import HOOKS

_MEND = 'Resume from the last checkpoint with a lower learning rate, or in bfloat16 or float32'


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training when the loss is no longer a finite number.

    The reference stops too (facebookresearch/deit at ``7e160fe``). No checkpoint is written after such
    an iteration, nor one whose weights are not finite: in distributed training the loss of another
    process may be the one that was not.

    To read a loss waits for the device, which then has nothing to do. So all that an iteration logs is
    copied in one piece, and looked at in the next iteration, when the device has work again: training stops
    at most one iteration late. Where something reads the values they are looked at at once: where they are
    logged, at the end of an epoch, before a validation and before a checkpoint. What is logged and saved is
    the same.

    In the iterations between, a hook of the priority ``VERY_HIGH`` or above gets empty ``outputs``, and the
    message hub has the values of the iteration before. Later hooks get the ``outputs`` on their device.
    """

    priority = 'HIGHEST'  # before anything is logged, averaged or saved

    def __init__(self):
        self._late: _Logged | None = None
        self.withheld: dict[str, torch.Tensor] = {}

    def before_train(self, runner) -> None:
        """Forget an earlier training, which may have been interrupted."""
        self._late = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Check the loss of the iteration before, and of this one if it is read now.

        Raises:
            FloatingPointError: If it is not finite.
        """
        if not outputs or 'loss' not in outputs:
            return  # a loop that trains nothing
        logged = _Logged(runner, batch_idx, outputs)
        self._record_late(runner)
        if _is_read(runner, self, batch_idx, outputs):
            outputs.update(logged.values())
            return
        if not any(isinstance(hook, _GiveBackHook) for hook in runner.hooks):
            runner.register_hook(_GiveBackHook(self))  # it is called in this iteration
        self._late = logged
        self.withheld = logged.on_device()
        outputs.clear()

    def _record_late(self, runner) -> bool:
        """Hand the values of an earlier iteration to who records them, if there are any."""
        late, self._late = self._late, None
        if late is None:
            return False
        values = late.values()
        for hook in runner.hooks:
            if isinstance(hook, RuntimeInfoHook):
                hook.after_train_iter(runner, late.batch_idx, None, values)
        return True

    def after_train_epoch(self, runner) -> None:
        """Check the last iteration, where the loop was stopped before its end.

        Raises:
            FloatingPointError: If its loss is not finite.
        """
        self._record_late(runner)

    def before_val(self, runner) -> None:
        """Check the last iteration.

        Raises:
            FloatingPointError: If its loss is not finite.
        """
        self._record_late(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the last iteration, the weights, and those of a moving average.

        Raises:
            FloatingPointError: If one is not finite.
        """
        if self._record_late(runner) and 'message_hub' in checkpoint:  # which was copied before
            checkpoint['message_hub']['log_scalars'] = runner.message_hub.state_dict()['log_scalars']
        weights = list(checkpoint['state_dict'].items())
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):  # which adds its average later
                weights += [(f'the average {name}', v) for name, v in hook.ema_model.state_dict().items()]
        for name, value in weights:
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise FloatingPointError(
                    f'{name} is not finite after iteration {runner.iter}: this checkpoint is not saved, '
                    f'the earlier ones are kept. {_MEND}'
                )


class _GiveBackHook(Hook):
    """Gives the ``outputs`` back that a :class:`FiniteLossHook` withheld."""

    priority = 'VERY_HIGH'  # registered last, so after RuntimeInfoHook, before a user's hooks

    def __init__(self, hook: FiniteLossHook):
        self.hook = hook

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Give them back."""
        if outputs is not None:
            outputs.update(self.hook.withheld)
        self.hook.withheld = {}


class _Logged:
    """What an iteration logs, on its way from the device.

    Args:
        runner (Runner): The iteration is its current one.
        batch_idx (int): Of the iteration, as hooks get it.
        outputs (dict[str, torch.Tensor]): Each of one value.
    """

    def __init__(self, runner, batch_idx: int, outputs: dict[str, torch.Tensor]):
        self.iter, self.epoch, self.batch_idx, self.names = (
            runner.iter,
            runner.epoch,
            batch_idx,
            list(outputs),
        )
        device = outputs['loss'].device
        values = [torch.as_tensor(v, dtype=torch.float32, device=device) for v in outputs.values()]
        self.stacked = torch.stack([value.detach().mean() for value in values])
        # On CUDA this copies into pinned memory; other devices would not tell when it is done.
        is_cuda = device.type == 'cuda'
        self.copied = self.stacked.to('cpu', non_blocking=is_cuda)
        self.event = torch.cuda.Event() if is_cuda else None
        if self.event is not None:
            self.event.record(torch.cuda.current_stream(device))

    def on_device(self) -> dict[str, torch.Tensor]:
        """By name, where they were, without a gradient."""
        return dict(zip(self.names, self.stacked.unbind()))

    def values(self) -> dict[str, torch.Tensor]:
        """By name, on the CPU.

        Raises:
            FloatingPointError: If the loss is not finite.
        """
        if self.event is not None:
            self.event.synchronize()
        values = dict(zip(self.names, self.copied.unbind()))
        if torch.isfinite(values['loss']):
            return values
        parts = ', '.join(f'{k} {float(v):g}' for k, v in values.items())
        raise FloatingPointError(
            f'The loss is not finite at iteration {self.iter + 1} (epoch {self.epoch + 1}): {parts}. '
            f'Training stops and saves nothing more. {_MEND}'
        )


def _is_read(runner, hook: Hook, batch_idx: int, outputs: dict) -> bool:
    """Whether something reads the values of this iteration before the next one."""
    known = runner.message_hub.log_scalars
    if any(f'train/{name}' not in known for name in outputs):
        return True  # new ones are logged in the order in which they come
    priority = get_priority(hook.priority)
    if any(isinstance(h, RuntimeInfoHook) and get_priority(h.priority) <= priority for h in runner.hooks):
        return True  # mmengine has read them already
    return hook.end_of_epoch(runner.train_dataloader, batch_idx) or any(
        isinstance(h, LoggerHook) and hook.every_n_inner_iters(batch_idx, h.interval) for h in runner.hooks
    )
