"""Bounds what is kept of the scalars that are logged."""

from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

KEPT = 1000  # values at least: to look at, 16 kB each


@HOOKS.register_module()
class HistoryHook(Hook):
    """Keeps of each logged scalar as many values as the log reads, and at least the last thousand.

    mmengine keeps a million. It copies all of them for each new one, and writes them into each checkpoint: at
    a million iterations that takes longer than a step of a small model. The logged values are the same. A
    scalar of which the ``log_processor`` asks the whole history keeps it: ``window_size='global'``, or a
    statistic without a ``window_size``.
    """

    priority = 'VERY_HIGH'  # before this iteration's values are added

    def __init__(self):
        self.default: dict[str, float] = {}  # a validation alone has nothing to bound
        self.asked: dict[str, float] = {}

    def before_train(self, runner) -> None:
        """See what the log reads."""
        processor = runner.log_processor
        lengths = dict(train=len(runner.train_dataloader))
        if runner.val_loop is not None:
            lengths['val'] = len(runner.val_loop.dataloader)
        # At the end of a validation the log reads all of it.
        self.default = dict(train=max(KEPT, processor.window_size), val=max(KEPT, lengths.get('val', 0)))
        self.asked = {}
        for cfg in processor.custom_cfg:
            window = cfg.get('window_size', 'global')
            for mode, length in lengths.items():
                name = cfg['data_src'] if processor.log_with_hierarchy else f'{mode}/{cfg["data_src"]}'
                number = {'epoch': length, 'global': float('inf')}.get(window, window)
                self.asked[name] = max(number, self.asked.get(name, 0))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Bound what is there; mmengine drops the rest with the next value."""
        self._bound(runner.message_hub.log_scalars)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """As in training."""
        self._bound(runner.message_hub.log_scalars)

    def _bound(self, scalars: dict):
        for name, buffer in scalars.items():
            kept = self.default.get(name.partition('/')[0])
            if kept is not None:
                buffer.max_length = min(1_000_000, max(kept, self.asked.get(name, 0)))
