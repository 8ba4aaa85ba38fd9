"""A moving average of the weights in few operations."""

import torch
import torch.nn as nn
from mmengine.model import ExponentialMovingAverage
from mmpretrain.registry import MODELS


@MODELS.register_module()
class ForeachEMA(ExponentialMovingAverage):
    """mmengine's ``ExponentialMovingAverage``, which updates all weights in one operation.

    mmengine gives the device an operation for each parameter and each buffer. Averages, state dicts and
    arguments are the same, so that either class resumes what the other one saved. The reference's decay of
    0.99996 (facebookresearch/deit at ``7e160fe``) is a ``momentum`` of 4e-5::

        custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=4e-5)]

    Args:
        *args: As for mmengine's class.
        **kwargs: As for mmengine's class.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # It is read in each update, wherever the average is.
        self.steps = torch.zeros_like(self.steps, device='cpu')

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average in the weights of a model.

        Args:
            model (nn.Module): Of the kind that was given first.
        """
        steps = int(self.steps)
        if steps % self.interval == 0:
            values = model.state_dict() if self.update_buffers else dict(model.named_parameters())
            names = [
                n for n, average in self.avg_parameters.items() if not steps or average.is_floating_point()
            ]
            averages = [self.avg_parameters[name] for name in names]
            sources = [values[name].to(average.device) for name, average in zip(names, averages)]
            if steps:
                torch._foreach_lerp_(averages, sources, self.momentum)
            else:
                torch._foreach_copy_(averages, sources)
        buffers = [] if self.update_buffers else list(self.module.buffers())
        if buffers:
            torch._foreach_copy_(buffers, list(model.buffers()))
        self.steps += 1
