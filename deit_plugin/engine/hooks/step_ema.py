"""A moving average by steps."""

from mmengine.hooks import EMAHook
from mmpretrain.registry import HOOKS


@HOOKS.register_module()
class StepEMAHook(EMAHook):
    """mmengine's ``EMAHook``, which averages after each step of the optimizer, as the reference does.

    ``EMAHook`` averages after each iteration, so where gradients are accumulated its average depends on the
    number of processes and their batch.
    """

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Average, if this iteration made a step."""
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)
