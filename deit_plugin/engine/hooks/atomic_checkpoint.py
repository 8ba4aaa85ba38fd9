"""Checkpoints that survive a kill at any moment."""

import hashlib
import io
import math
import os
import os.path as osp
import weakref
from collections.abc import Callable, Sequence
from numbers import Real

import torch
from filelock import FileLock
from mmengine.dist import barrier, is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.runner import BaseLoop, CheckpointLoader, EpochBasedTrainLoop
from mmpretrain.registry import HOOKS

from ...checkpoints.atomic import write_whole
from ...checkpoints.reading import DIGEST, digest
from ..utils import into_the_file
from ..work_folder import WorkFolder, remove_partial


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, safe against a kill at any moment.

    mmengine writes checkpoints in place and removes the old one (``max_keep_ckpts``, ``save_best``)
    before it writes the new one. Here a file appears when it is whole, and an old one goes when the new
    one is there. Only checkpoints that were written by trainings in the run's own folder are removed,
    whatever a checkpoint that is resumed says of others. A resumed training first repeats the validation
    of its checkpoint, since a kill may have cost its result. A second training in the same folder is
    refused. A best checkpoint elsewhere is neither removed nor published. The SHA-256 of the weights is
    written beside them (``meta``). At the end the log says what the best checkpoint reached.

    Args:
        **kwargs: As for ``CheckpointHook``. ``backend_args`` defaults to atomic writing on the local
            disk.
    """

    def __init__(self, **kwargs):
        if 'file_client_args' not in kwargs:
            kwargs.setdefault('backend_args', dict(backend='atomic_local'))
        super().__init__(**kwargs)
        self._release: Callable = _release

    def _save_checkpoint_with_step(self, runner, step, meta):
        # The parent's, but for the order of writing and removing, and a pointer that is written whole.
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        filename = self.filename_tmpl.format(step)
        if is_main_process():
            self._folder.keep_of_others(filename)
            self._folder.add(filename)
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
            write_whole(osp.join(runner.work_dir, 'last_checkpoint'), os.fsencode(self.last_ckpt))
            for name in outdated:
                self._remove(self.file_backend.join_path(self.out_dir, name))

    def _save_best_checkpoint(self, runner, metrics):
        before, names = self._best_paths(), self._best_names(runner, metrics)
        for name in names:
            self._folder.keep_of_others(name)
        self._folder.add(*names)  # before it is written, so that a kill leaves no file of nobody
        backend, self.file_backend = self.file_backend, _Removals(self.file_backend, self._is_own)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            removals, self.file_backend = self.file_backend, backend
        for name in names - {osp.basename(path) for path in self._best_paths() | before}:
            self._folder.forget(name)  # it was not better
        for path in removals.paths:
            self._remove(path)

    def _best_names(self, runner, metrics) -> set[str]:
        """What the parent may write."""
        if not self.save_best or not is_main_process():
            return set()
        keys = [next(iter(metrics))] if 'auto' in self.key_indicators else self.key_indicators
        step = self.filename_tmpl.format(runner.epoch if self.by_epoch else runner.iter)
        return {f'best_{key}_{step}'.replace('/', '_') for key in keys}

    def _best_paths(self) -> set[str]:
        paths = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        return {path for path in paths if path}

    def _is_own(self, path) -> bool:
        """Whether a training in this folder wrote a file that lies directly in it."""
        if not isinstance(path, str):
            return False
        name, folder = osp.basename(path), osp.realpath(self.out_dir)
        return osp.realpath(path) == osp.join(folder, name) and self._folder.wrote(name)

    def _remove(self, path: str):
        if not self._is_own(path):
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # DeepSpeed's are folders
            self.file_backend.rmtree(path)
        self._folder.forget(osp.basename(path))

    @master_only
    def _publish_model(self, runner, ckpt_path: str) -> None:
        # The parent names it by another hash than the file's, and writes beside whatever was resumed.
        if not self._is_own(ckpt_path):
            return
        checkpoint = CheckpointLoader.load_checkpoint(ckpt_path, 'cpu')
        buffer = io.BytesIO()
        torch.save({key: checkpoint[key] for key in self.published_keys if key in checkpoint}, buffer)
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = f'{osp.splitext(ckpt_path)[0]}-{digest[:8]}.pth'
        self.file_backend.put(buffer.getvalue(), path)
        runner.logger.info(f'{ckpt_path} is published as {path}, with {self.published_keys} alone')

    def before_run(self, runner) -> None:
        """Lock the folder for this training, and find its last checkpoint.

        Raises:
            RuntimeError: If another training runs in it.
        """
        run = WorkFolder(runner.work_dir)
        out = self._folder_of(runner.work_dir)
        elsewhere = out != runner.work_dir and '://' not in out
        self._folder = WorkFolder(out) if elsewhere else run
        if not isinstance(runner._train_loop, BaseLoop):
            return
        if is_main_process():
            config = osp.basename(runner.cfg.filename or f'{runner.timestamp}.py')
            held = [run.lock(osp.join(runner.work_dir, config))]
            held += [self._folder.lock()] if elsewhere else []
            # A training that fails ends without a word to its hooks.
            self._release = weakref.finalize(runner, _release, held)
            if not runner._resume:
                self._folder.start_anew()
            elif runner._load_from is None:
                run.mend_pointer()
        barrier()

    def _folder_of(self, work_dir: str) -> str:
        """Where the checkpoints are, as the parent makes it of its argument when training starts."""
        return osp.join(self.out_dir, osp.basename(work_dir.rstrip(osp.sep))) if self.out_dir else work_dir

    def before_train(self, runner) -> None:
        """Find the folder, remove what a killed write left there, and repeat a validation that a kill may
        have cost."""
        self._distrust(runner.message_hub.runtime_info, runner.work_dir)
        with into_the_file(runner.logger):  # mmengine warns of what it calls itself
            super().before_train(runner)
        last = runner.message_hub.runtime_info.get('last_ckpt')
        if self._is_own(last):  # so that a new best is recorded at once
            self.last_ckpt = last
        if is_main_process():
            for folder in {runner.work_dir, self.out_dir}:
                remove_partial(folder)
        if runner._resume and self.save_best and _was_due(runner):
            # The checkpoint is written before the validation, so it does not tell whether that was done.
            runner.logger.info(f'Validating the checkpoint that is resumed, of epoch {runner.epoch}')
            runner.val_loop.run()

    def _distrust(self, info: dict, work_dir: str):
        """Drop what a checkpoint says of files that are not of this folder's trainings."""
        folder = self._folder_of(work_dir)
        steps = info.pop('keep_ckpt_ids', None)
        if isinstance(steps, list):
            steps = [step for step in steps if type(step) is int]
            info['keep_ckpt_ids'] = [s for s in steps if self._folder.wrote(self.filename_tmpl.format(s))]
        for name in [n for n in info if str(n).startswith('best_score')]:
            if not isinstance(info[name], Real) or not math.isfinite(info[name]):
                del info[name]
        for name in [n for n in info if n == 'last_ckpt' or str(n).startswith('best_ckpt')]:
            if not isinstance(info[name], str):
                del info[name]
                continue
            moved = osp.join(folder, osp.basename(info[name]))
            if not osp.exists(info[name]) and osp.isfile(moved):
                info[name] = moved

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Write the SHA-256 of the weights beside them, last of all hooks."""
        if all(isinstance(value, torch.Tensor) for value in checkpoint['state_dict'].values()):
            checkpoint['meta'][DIGEST] = digest(checkpoint['state_dict'])

    def after_train(self, runner) -> None:
        """Publish as ``CheckpointHook`` does, and say what was reached."""
        super().after_train(runner)
        self._release()
        info = runner.message_hub.runtime_info
        for name in self.save_best and self.key_indicators or ():
            suffix = '' if len(self.key_indicators) == 1 else f'_{name}'
            if f'best_score{suffix}' in info:
                runner.logger.info(
                    f'Training is done: best {name} {info[f"best_score{suffix}"]:.2f}, kept in '
                    f'{info[f"best_ckpt{suffix}"]}'
                )


def _release(locks: Sequence[FileLock | None] = ()):
    for held in locks:
        if held is not None:
            held.release()


class _Removals:
    """A file backend that notes removals instead of carrying them out.

    Args:
        backend: mmengine's.
        is_own (Callable): Whether a path may be removed; any other does not exist here.
    """

    def __init__(self, backend, is_own: Callable[[str], bool]):
        self.backend = backend
        self.is_own = is_own
        self.paths: list[str] = []

    def __getattr__(self, name: str):
        return getattr(self.backend, name)

    def isfile(self, path: str) -> bool:
        """Whether it is a file of this run."""
        return self.is_own(path) and self.backend.isfile(path)

    def isdir(self, path: str) -> bool:
        """Whether it is a folder of this run."""
        return self.is_own(path) and self.backend.isdir(path)

    def remove(self, path: str) -> None:
        """Note a file."""
        self.paths.append(path)

    rmtree = remove


def _was_due(runner) -> bool:
    """Whether the loop validates where the checkpoint was written."""
    loop = runner.train_loop
    if runner.val_loop is None or not hasattr(loop, 'val_interval'):
        return False
    done, last = runner.iter, runner.max_iters
    if isinstance(loop, EpochBasedTrainLoop):
        if runner.iter != runner.epoch * len(loop.dataloader):
            return False  # amid an epoch
        done, last = runner.epoch, runner.max_epochs
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)
