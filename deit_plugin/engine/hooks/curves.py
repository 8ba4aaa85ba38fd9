"""A picture of the training."""

import os.path as osp

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.registry import HOOKS

from ...checkpoints.atomic import write_whole
from ...visualization.curves import read_scalars
from ...visualization.figures import curves_figure, png


@HOOKS.register_module()
class CurvesHook(Hook):
    """Draws the course of a training when it ends, ``curves.png`` in the work folder: losses, accuracies of
    both heads and of the teacher, agreement, learning rate; across resumptions.

    It reads what mmengine's ``LocalVisBackend`` writes.
    """

    @master_only
    def after_train(self, runner) -> None:
        """Draw."""
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        figure = curves_figure(read_scalars(runner.work_dir, len(runner.train_dataloader)))
        if figure is not None:
            path = osp.join(runner.work_dir, 'curves.png')
            write_whole(path, png(figure))
            runner.logger.info(f'The course of the training is drawn in {path}')
