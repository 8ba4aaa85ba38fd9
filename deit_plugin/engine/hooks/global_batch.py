"""The batch of the recipe on any number of processes."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from ..schedulers import DeiTLR


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
            wrapper._accumulative_counts = max(round(self.batch_size / (size * processes)), 1)
        count = wrapper._accumulative_counts
        batch = size * processes * count
        self.rates = [
            group.get('initial_lr', group['lr']) * batch / self.batch_size for group in wrapper.param_groups
        ]
        runner.logger.info(
            f'Batch: {size} images x {processes} process(es) x {count} '
            f'accumulated = {batch} (recipe: {self.batch_size}); learning '
            f'rate {max(self.rates):.4g}'
        )
        if batch > self.batch_size:
            runner.logger.warning(
                f'The batch of {batch} is larger than that of the recipe: '
                'set train_dataloader.batch_size='
                f'{self.batch_size // processes} or less to keep it'
            )

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
