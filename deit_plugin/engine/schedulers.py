"""The reference's learning rate."""

import math

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmpretrain.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class DeiTLR(LRSchedulerMixin, _ParamScheduler):
    r"""Warm-up and cosine of facebookresearch/deit at ``7e160fe``, by epoch.

    The warm-up is cut out of the cosine, whose period is all epochs T, and
    the schedule steps after an epoch with that epoch's number: epoch e trains
    at :math:`f(\max(e - 1, 0))` with

    .. math::
        f(t) = w + t (lr - w) / n \text{ for } t < n, \text{ else }
        m + (lr - m) (1 + \cos(\pi \min(t, T) / T)) / 2

    timm's own training script has no such lag, and some epochs more at m
    after the cosine: ``lag=0`` and ``period``.

    Each value depends on the epoch alone, so training resumes at any.

    Args:
        optimizer (OptimWrapper): Whose learning rate ``lr`` is.
        warmup_epochs (int): n. Defaults to 5.
        warmup_lr (float): w, absolute. Defaults to 1e-6.
        min_lr (float): m, absolute. Defaults to 1e-5.
        lag (int): How many epochs the schedule is late, 0 or 1. Defaults to 1.
        period (int, optional): T. Defaults to None: ``end``.
        end (int): The runner sets it to all epochs.
        **kwargs: ``last_step`` and ``verbose`` of mmengine's schedulers.

    Raises:
        ValueError: If the number of epochs is not known, or the schedule is
            to step by iteration.
    """

    def __init__(
        self,
        optimizer,
        warmup_epochs: int = 5,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
        lag: int = 1,
        period: int | None = None,
        end: int = INF,
        by_epoch: bool = True,
        **kwargs,
    ):
        if end == INF or not by_epoch:
            raise ValueError(
                f'DeiTLR(end={end}, by_epoch={by_epoch}) needs the number of '
                'epochs as `end`, and steps by epoch'
            )
        self.warmup_epochs = warmup_epochs
        self.warmup_lr = warmup_lr
        self.min_lr = min_lr
        self.lag = lag
        self.period = end if period is None else period
        super().__init__(optimizer, end=end, by_epoch=True, **kwargs)

    def _get_value(self) -> list[float]:
        t = max(self.last_step - self.lag, 0)
        if t < self.warmup_epochs:
            return [
                self.warmup_lr + t * (lr - self.warmup_lr) / self.warmup_epochs for lr in self.base_values
            ]
        cosine = (1 + math.cos(math.pi * min(t / self.period, 1))) / 2
        return [self.min_lr + (lr - self.min_lr) * cosine for lr in self.base_values]
