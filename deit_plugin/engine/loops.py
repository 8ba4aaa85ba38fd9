"""Training loops."""

import torch
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import LOOPS

from .utils import unwrap


@LOOPS.register_module()
class TeacherLabelLoop(EpochBasedTrainLoop):
    """Runs the teacher alone over all batches of a training.

    Epochs that are recorded already are left out. The student is not trained;
    ``deit-plugin label`` switches its checkpoints off.

    Args:
        runner (Runner): Of a config with ``model.teacher_labels``.
        **kwargs: As for ``EpochBasedTrainLoop``.
    """

    def __init__(self, runner, **kwargs):
        super().__init__(runner, **kwargs)
        self.model = unwrap(runner.model)
        if getattr(self.model, 'teacher_labels', None) is None:
            raise ValueError('There is nothing to record: the config has no `model.teacher_labels`')

    def run_epoch(self) -> None:
        """An epoch, unless all of it is recorded."""
        labels, length = self.model.teacher_labels, len(self.dataloader)
        store, start = labels.store, self._epoch * length
        if labels.mode == 'replay':
            raise ValueError("mode='replay' records nothing: choose 'auto', or 'record' to record all anew")
        epoch = range(start, start + length)
        if labels.mode == 'auto' and all(store.read(i) is not None for i in epoch):
            self._epoch += 1
            self._iter += length
            return
        super().run_epoch()

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Ask the teacher about a batch."""
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        with self.runner.optim_wrapper.optim_context(self.model):
            data = self.model.data_preprocessor(data_batch, training=True)
            self.model.teacher_labels(data['inputs'])
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs={})
        self._iter += 1
