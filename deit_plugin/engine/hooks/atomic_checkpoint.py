"""Checkpoints that survive a kill at any moment."""

import glob
import os
import os.path as osp

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmpretrain.registry import HOOKS

from ...checkpoints.atomic import PARTIAL, write_whole


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against a kill at any moment.

    mmengine writes checkpoints in place and removes the old one (``max_keep_ckpts``, ``save_best``)
    before it writes the new one. Here a file appears when it is whole, and an old one goes when the new
    one is there. At the end the log says what the best checkpoint reached.

    Args:
        **kwargs: As for ``CheckpointHook``. ``backend_args`` defaults to atomic writing on the local
            disk.
    """

    def __init__(self, **kwargs):
        if 'file_client_args' not in kwargs:
            kwargs.setdefault('backend_args', dict(backend='atomic_local'))
        super().__init__(**kwargs)

    def _save_checkpoint_with_step(self, runner, step, meta):
        # The parent's, but for the order of writing and removing, and a pointer that is written whole.
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
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
            **self.args,
        )
        if is_main_process():
            write_whole(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
            for name in outdated:
                _remove(self.file_backend, self.file_backend.join_path(self.out_dir, name))

    def _save_best_checkpoint(self, runner, metrics):
        backend, self.file_backend = self.file_backend, _Removals(self.file_backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            removals, self.file_backend = self.file_backend, backend
        for path in removals.paths:
            _remove(self.file_backend, path)

    def before_train(self, runner) -> None:
        """Find the folder, and remove what a killed write left there."""
        super().before_train(runner)
        if is_main_process():
            for path in glob.glob(osp.join(glob.escape(self.out_dir), '*' + PARTIAL)):
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
                    f'Training is done: best {name} {info[f"best_score{suffix}"]:.2f}, kept in '
                    f'{info[f"best_ckpt{suffix}"]}'
                )


class _Removals:
    """A file backend that notes removals instead of carrying them out.

    Args:
        backend: mmengine's.
    """

    def __init__(self, backend):
        self.backend = backend
        self.paths: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        """Note a file."""
        self.paths.append(path)

    rmtree = remove


def _remove(backend, path: str):
    if backend.isfile(path):
        backend.remove(path)
    elif backend.isdir(path):  # DeepSpeed's are folders
        backend.rmtree(path)
