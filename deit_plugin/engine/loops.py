"""Training loops."""

from collections.abc import Sequence
from itertools import islice

import torch
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.engine import SwitchRecipeHook
from mmpretrain.registry import LOOPS

from .utils import unwrap


@LOOPS.register_module()
class TeacherLabelLoop(EpochBasedTrainLoop):
    """Runs the teacher alone over the batches of a training.

    Epochs that are recorded already are left out. The student is not trained;
    ``deit-plugin label`` switches its checkpoints off.

    Args:
        runner (Runner): Of a config with ``model.teacher_labels``.
        epochs (Sequence[int], optional): Those to record, counted from 0.
            Defaults to None: all.
        batches (int, optional): Instead of recording, compare so many batches
            of each of these epochs with the teacher. Defaults to None.
        **kwargs: As for ``EpochBasedTrainLoop``.
    """

    def __init__(self, runner, epochs: Sequence[int] | None = None, batches: int | None = None, **kwargs):
        super().__init__(runner, **kwargs)
        self.epochs = range(self.max_epochs) if epochs is None else epochs
        self.batches = batches
        self.model = unwrap(runner.model)
        labels = getattr(self.model, 'teacher_labels', None)
        if labels is None:
            raise ValueError('There is nothing to record: the config has no `model.teacher_labels`')
        if labels.mode == 'replay' and batches is None:
            raise ValueError("mode='replay' records nothing: choose 'auto', or 'record' to record all anew")

    def run_epoch(self) -> None:
        """An epoch, unless it is recorded or left out."""
        labels = self.model.teacher_labels
        recorded = labels.mode == 'auto' and self._epoch in labels.recorded
        if self._epoch in self.epochs and not recorded:
            self.runner.call_hook('before_train_epoch')
            self.runner.model.train()
            for idx, data_batch in enumerate(islice(self.dataloader, self.batches)):
                self.run_iter(idx, data_batch)
            self.runner.call_hook('after_train_epoch')
        else:  # which switches the images of later epochs
            for hook in self.runner.hooks:
                if isinstance(hook, SwitchRecipeHook):
                    hook.before_train_epoch(self.runner)
        self._epoch += 1
        self._iter = self._epoch * len(self.dataloader)

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Ask the teacher about a batch."""
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        with self.runner.optim_wrapper.optim_context(self.model):
            data = self.model.data_preprocessor(data_batch, training=True)
            self.model.teacher_labels(data['inputs'])
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs={})
        self._iter += 1
