"""Hooks that keep a training run's results safe."""
import glob
import os
import os.path as osp
import re

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from ..fileio import PARTIAL, AtomicLocalBackend
from ..formats import to_mmpretrain
from ..models import DeiT


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against a kill at any moment.

    mmengine writes checkpoints in place and removes the old one
    (``max_keep_ckpts``, ``save_best``) before it writes the new one. Here a
    file appears when it is whole, and an old one goes when the new one is
    there. At the end the log says what the best checkpoint reached.

    Args:
        **kwargs: As for ``CheckpointHook``. ``backend_args`` defaults to
            atomic writing on the local disk.
    """

    def __init__(self, **kwargs):
        if 'file_client_args' not in kwargs:
            kwargs.setdefault('backend_args', dict(backend='atomic_local'))
        super().__init__(**kwargs)

    def _save_checkpoint_with_step(self, runner, step, meta):
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids',
                                           list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            file_client_args=self.file_client_args,
            backend_args=self.backend_args,
            **self.args)
        if not is_main_process():
            return
        AtomicLocalBackend().put(self.last_ckpt.encode(),
                                 osp.join(runner.work_dir, 'last_checkpoint'))
        for old in outdated:
            self._remove(
                self.file_backend.join_path(self.out_dir,
                                            self.filename_tmpl.format(old)))

    def _save_best_checkpoint(self, runner, metrics):
        if not self.save_best:
            return
        # Hidden from the parent, which would remove them first.
        if len(self.key_indicators) == 1:
            before = dict(best_ckpt=self.best_ckpt_path)
            self.best_ckpt_path = None
            super()._save_best_checkpoint(runner, metrics)
            self.best_ckpt_path = self.best_ckpt_path or before['best_ckpt']
            after = dict(best_ckpt=self.best_ckpt_path)
        else:
            before = self.best_ckpt_path_dict
            self.best_ckpt_path_dict = dict.fromkeys(before)
            super()._save_best_checkpoint(runner, metrics)
            after = self.best_ckpt_path_dict = {
                k: v or before[k]
                for k, v in self.best_ckpt_path_dict.items()
            }
        if is_main_process():
            for old in set(before.values()) - set(after.values()) - {None}:
                self._remove(old)

    def _remove(self, path: str):
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed's are folders
            self.file_backend.rmtree(path)

    def before_train(self, runner) -> None:
        """Find the folder, and remove what a killed write left there."""
        super().before_train(runner)
        if is_main_process():
            for path in glob.glob(
                    osp.join(glob.escape(self.out_dir), '*' + PARTIAL)):
                if osp.isfile(path):
                    os.remove(path)

    def after_train(self, runner) -> None:
        """Publish as ``CheckpointHook`` does, and say what was reached."""
        super().after_train(runner)
        info = runner.message_hub.runtime_info
        for name in self.save_best and self.key_indicators or ():
            suffix = '' if len(self.key_indicators) == 1 else f'_{name}'
            if f'best_score{suffix}' in info:
                runner.logger.info(
                    f'Training is done: best {name} '
                    f'{info[f"best_score{suffix}"]:.2f}, kept in '
                    f'{info[f"best_ckpt{suffix}"]}')


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops training when the loss is no longer a finite number.

    The reference stops too (facebookresearch/deit at ``7e160fe``). No
    checkpoint is written after such an iteration, nor one whose weights are
    not finite: in distributed training the loss of another process may be the
    one that was not.

    To look at the loss is to wait for the device. All that is logged is
    fetched with it, which mmengine's own hooks would wait for one by one.
    """
    priority = 'HIGHEST'  # before anything is logged, averaged or saved

    def after_train_iter(self, runner, batch_idx, data_batch=None,
                         outputs=None) -> None:
        """Check the loss of this iteration.

        Raises:
            FloatingPointError: If it is not finite.
        """
        device = outputs['loss'].device
        values = torch.stack([
            torch.as_tensor(v, dtype=torch.float32,
                            device=device).detach().mean()
            for v in outputs.values()
        ]).cpu().unbind()
        outputs.update(zip(outputs, values))
        if torch.isfinite(outputs['loss']):
            return
        parts = ', '.join(f'{k} {float(v):g}' for k, v in outputs.items())
        raise FloatingPointError(
            f'The loss is not finite at iteration {runner.iter + 1} (epoch '
            f'{runner.epoch + 1}): {parts}. Training stops and saves nothing '
            'more. Resume from the last checkpoint with a lower learning '
            'rate, or in bfloat16 or float32')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check the weights.

        Raises:
            FloatingPointError: If one is not finite.
        """
        for name, value in checkpoint['state_dict'].items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise FloatingPointError(
                    f'{name} is not finite after iteration {runner.iter}: '
                    'this checkpoint is not saved, the earlier ones are '
                    'kept. Resume from the last one with a lower learning '
                    'rate, or in bfloat16 or float32')


@HOOKS.register_module()
class FilledModelHook(Hook):
    """Says what a checkpoint does not fill, and evaluates no such model.

    mmengine prints a warning of it and goes on with random weights. To
    fine-tune that is as it should be: a head for other classes is drawn anew,
    and so is a distillation token that the checkpoint lacks. Here the log
    lists them. (All else of the backbone :class:`DeiT` insists on itself.)
    """

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare a checkpoint with the model that it is for.

        Raises:
            ValueError: If the model is to be evaluated, or its training
                resumed, and the checkpoint does not fill it.
        """
        model = runner.model
        model = model.module if is_model_wrapper(model) else model
        given = checkpoint.get('state_dict', checkpoint)
        deit = isinstance(getattr(model, 'backbone', None), DeiT)
        if deit:
            given = to_mmpretrain(given)[1]
        given = {
            re.sub(r'^module\.', '', name): getattr(value, 'shape', None)
            for name, value in given.items()
        }
        lacking = [
            name for name, value in model.state_dict().items()
            if given.get(name) != value.shape and name != 'backbone.pos_embed'
            and not name.endswith('num_batches_tracked')
        ]
        foreign = deit and any(
            name.startswith('backbone.') and
            (name in given or name != 'backbone.dist_token')
            for name in lacking)
        if foreign or not lacking:
            return  # the backbone itself refuses what is not its own
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            runner.logger.warning(
                f'Not filled by the checkpoint, newly drawn: {lacking}')
            return
        raise ValueError(
            f'The checkpoint does not fill {lacking}, which would be random. '
            'Is it of a model with as many classes and the same tokens? It '
            'may serve to start a training from, as `load_from`')
