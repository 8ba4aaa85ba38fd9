"""The reference's learning rate, for the batch that is really used."""
import math
from typing import List

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import INF, _ParamScheduler
from mmpretrain.registry import HOOKS, PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class DeiTLR(LRSchedulerMixin, _ParamScheduler):
    r"""Warm-up and cosine of facebookresearch/deit at ``7e160fe``, by epoch.

    The warm-up is cut out of the cosine, whose period is all epochs T, and
    the schedule steps after an epoch with that epoch's number: epoch e trains
    at :math:`f(\max(e - 1, 0))` with

    .. math::
        f(t) = w + t (lr - w) / n \text{ for } t < n, \text{ else }
        m + (lr - m) (1 + \cos(\pi t / T)) / 2

    Each value depends on the epoch alone, so training resumes at any.

    Args:
        optimizer (OptimWrapper): Whose learning rate ``lr`` is.
        warmup_epochs (int): n. Defaults to 5.
        warmup_lr (float): w, absolute. Defaults to 1e-6.
        min_lr (float): m, absolute. Defaults to 1e-5.
        end (int): T; the runner sets it to all epochs.
        **kwargs: ``last_step`` and ``verbose`` of mmengine's schedulers.

    Raises:
        ValueError: If the number of epochs is not known, or the schedule is
            to step by iteration.
    """

    def __init__(self,
                 optimizer,
                 warmup_epochs: int = 5,
                 warmup_lr: float = 1e-6,
                 min_lr: float = 1e-5,
                 end: int = INF,
                 by_epoch: bool = True,
                 **kwargs):
        if end == INF or not by_epoch:
            raise ValueError(
                f'DeiTLR(end={end}, by_epoch={by_epoch}) needs the number of '
                'epochs as `end`, and steps by epoch')
        self.warmup_epochs = warmup_epochs
        self.warmup_lr = warmup_lr
        self.min_lr = min_lr
        super().__init__(optimizer, end=end, by_epoch=True, **kwargs)

    def _get_value(self) -> List[float]:
        t = max(self.last_step - 1, 0)
        if t < self.warmup_epochs:
            return [
                self.warmup_lr + t * (lr - self.warmup_lr) / self.warmup_epochs
                for lr in self.base_values
            ]
        cosine = (1 + math.cos(math.pi * t / self.end)) / 2
        return [
            self.min_lr + (lr - self.min_lr) * cosine
            for lr in self.base_values
        ]


@HOOKS.register_module()
class GlobalBatchHook(Hook):
    """Keeps the batch of the recipe on any number of processes.

    Gradients are accumulated until as many images went by as the recipe has
    in a batch. Where that cannot be met exactly, the learning rate follows
    the batch linearly, as in the reference. The log says which batch and
    which rate that is.

    Args:
        batch_size (int): The images that the optimizer's learning rate is
            meant for, over all processes.
    """
    priority = 'VERY_HIGH'

    def __init__(self, batch_size: int):
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size} is not positive')
        self.batch_size = batch_size

    def before_run(self, runner) -> None:
        """Set the accumulation; a test run has none."""
        if not hasattr(runner.optim_wrapper, 'param_groups'):
            return
        size, processes = runner.train_dataloader.batch_size, get_world_size()
        wrapper = runner.optim_wrapper
        if wrapper._accumulative_counts == 1:  # else the user's own choice
            wrapper._accumulative_counts = max(
                round(self.batch_size / (size * processes)), 1)
        count = wrapper._accumulative_counts
        batch = size * processes * count
        self.rates = [
            group.get('initial_lr', group['lr']) * batch / self.batch_size
            for group in wrapper.param_groups
        ]
        runner.logger.info(
            f'Batch: {size} images x {processes} process(es) x {count} '
            f'accumulated = {batch} (recipe: {self.batch_size}); learning '
            f'rate {max(self.rates):.4g}')
        if batch > self.batch_size:
            runner.logger.warning(
                f'The batch of {batch} is larger than that of the recipe: '
                'set train_dataloader.batch_size='
                f'{self.batch_size // processes} or less to keep it')

    def before_train(self, runner) -> None:
        """Set the rate, after a checkpoint may have brought another one."""
        groups = runner.optim_wrapper.param_groups
        for group, rate in zip(groups, self.rates):
            group['lr'] *= rate / group.get('initial_lr', group['lr'])
            group['initial_lr'] = rate
        for scheduler in runner.param_schedulers or ():
            scheduler.base_values = list(self.rates)
            if isinstance(scheduler, DeiTLR):  # its warm-up is absolute
                for group, value in zip(groups, scheduler._get_value()):
                    group['lr'] = value
