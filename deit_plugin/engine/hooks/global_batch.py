"""The batch of the recipe on any number of processes."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from ...datasets.seeded import named_virtual_processes
from ..schedulers import DeiTLR


@HOOKS.register_module()
class GlobalBatchHook(Hook):
    """Keeps the batch of the recipe on any number of processes.

    Gradients are accumulated until as many images went by as the recipe has
    in a batch: those of all virtual processes, where the sampler names them
    (:class:`RepeatedAugmentSampler`). Where that cannot be met exactly, the
    learning rate follows the batch linearly, as in the reference. The log
    says which batch and which rate that is.

    A training with virtual processes may be resumed on another number of
    real ones, or with another batch.

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
        """Set the accumulation; a test run has none.

        Raises:
            ValueError: If the virtual processes cannot be shared so.
        """
        if not hasattr(runner.optim_wrapper, 'param_groups'):
            return
        size, processes = runner.train_dataloader.batch_size, get_world_size()
        wrapper, virtual = runner.optim_wrapper, named_virtual_processes(runner.train_dataloader)
        count = wrapper._accumulative_counts
        if virtual is not None:
            needed = virtual.accumulated(size)
            if count not in (1, needed):
                raise ValueError(
                    f'{virtual}: here {needed} batches of {size} are accumulated, and '
                    f'`optim_wrapper.accumulative_counts` is {count}: leave it out'
                )
            count = needed
        elif count == 1:  # else the user's own choice
            count = max(round(self.batch_size / (size * processes)), 1)
        wrapper._accumulative_counts = count
        batch = size * processes * count
        self.rates = [
            group.get('initial_lr', group['lr']) * batch / self.batch_size for group in wrapper.param_groups
        ]
        if virtual is not None:
            runner.logger.info(f'{virtual}, of which each of {processes} carries {len(virtual.carried)}')
        runner.logger.info(
            f'Batch: {size} images x {processes} process(es) x {count} '
            f'accumulated = {batch} (recipe: {self.batch_size}); learning '
            f'rate {max(self.rates):.4g}'
        )
        if batch > self.batch_size:
            smaller = f'`train_dataloader.batch_size={self.batch_size // processes}` or less'
            if virtual is not None:
                smaller = (
                    f'`train_dataloader.sampler.processes={max(self.batch_size // virtual.batch_size, 1)}`'
                )
            runner.logger.warning(
                f'The batch of {batch} is larger than that of the recipe, {self.batch_size}, and the rate '
                f'follows it: set {smaller} to keep both'
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Save how many iterations make a step, where another run may have another number."""
        if named_virtual_processes(runner.train_dataloader) is not None:
            checkpoint['meta']['accumulated'] = runner.optim_wrapper._accumulative_counts

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
