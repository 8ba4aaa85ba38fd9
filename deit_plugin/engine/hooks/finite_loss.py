"""Stops training at a loss that is not finite."""

import torch
from mmengine.hooks import EMAHook, Hook
from mmpretrain.registry import HOOKS

_MEND = 'Resume from the last checkpoint with a lower learning rate, or in bfloat16 or float32'


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training when the loss is no longer a finite number.

    The reference stops too (facebookresearch/deit at ``7e160fe``). No checkpoint is written after such
    an iteration, nor one whose weights are not finite: in distributed training the loss of another
    process may be the one that was not.

    Looking at the loss waits for the device. All that is logged is fetched with it; mmengine's own
    hooks would wait for each value.
    """

    priority = 'HIGHEST'  # before anything is logged, averaged or saved

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Check the loss of this iteration.

        Raises:
            FloatingPointError: If it is not finite.
        """
        if not outputs or 'loss' not in outputs:
            return  # a loop that trains nothing
        device = outputs['loss'].device
        values = [torch.as_tensor(v, dtype=torch.float32, device=device) for v in outputs.values()]
        fetched = torch.stack([value.detach().mean() for value in values]).cpu().unbind()
        outputs.update(zip(outputs, fetched))
        if torch.isfinite(outputs['loss']):
            return
        parts = ', '.join(f'{k} {float(v):g}' for k, v in outputs.items())
        raise FloatingPointError(
            f'The loss is not finite at iteration {runner.iter + 1} (epoch {runner.epoch + 1}): {parts}. '
            f'Training stops and saves nothing more. {_MEND}'
        )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the weights, and those of a moving average.

        Raises:
            FloatingPointError: If one is not finite.
        """
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
