"""mmengine's runner with a short start and a way back."""

import copy
import os
import os.path as osp
import shlex
import sys
from contextlib import ExitStack

from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmpretrain.registry import RUNNERS

from ..draws import set_iteration
from ..models.loaded import keep_weights
from .hooks.global_batch import GlobalBatchHook
from .own_images import complete
from .utils import into_the_file


@RUNNERS.register_module()
class DeiTRunner(Runner):
    """mmengine's ``Runner`` for whoever sits at a terminal.

    Environment, config and the order of the hooks go into the log file alone; :class:`SetupHook` says in a
    few lines what is trained on what. A training that is interrupted by Ctrl-C ends with the command that
    goes on.
    """

    def __init__(self, *args, **kwargs):
        with ExitStack() as self._start:
            super().__init__(*args, **kwargs)
        self.logger.info(f'The log is in {self.log_dir}, the config in {self.work_dir}')

    def build_logger(self, *args, **kwargs):
        """As the parent's; what it logs until it is built, some 300 lines, is for the file."""
        logger = super().build_logger(*args, **kwargs)
        self._start.enter_context(into_the_file(logger))
        return logger

    def register_default_hooks(self, hooks=None):
        """As the parent's, which takes None, for no such hook, only where the name is one of its own."""
        own = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
        hooks = {n: hook for n, hook in (hooks or {}).items() if hook is not None or n in own}
        super().register_default_hooks(hooks)

    def build_model(self, model):
        """As the parent's; a timm model keeps the weights that it was built with, as pretrained ones."""
        model = super().build_model(model)
        keep_weights(model)
        return model

    @staticmethod
    def build_dataloader(dataloader, *args, **kwargs):
        """As the parent's, without what a loader cannot use: torch warns at each epoch of pinned memory where
        there is no device, and takes no persistent workers if there are none."""
        if isinstance(dataloader, dict):
            dataloader = dict(dataloader)
            if get_device() == 'cpu':
                dataloader['pin_memory'] = False
            if not dataloader.get('num_workers'):
                dataloader['persistent_workers'] = False
        return Runner.build_dataloader(dataloader, *args, **kwargs)

    def scale_lr(self, optim_wrapper, auto_scale_lr=None):
        """As the parent's (``--auto-scale-lr``), unless :class:`GlobalBatchHook` lets it follow the batch.

        Raises:
            ValueError: If the batch that the rate is meant for is not known.
        """
        if not (auto_scale_lr or {}).get('enable'):
            return
        if any(isinstance(hook, GlobalBatchHook) for hook in self.hooks):
            self.logger.info('The rate is not scaled by --auto-scale-lr: it follows the batch already')
            return
        if not auto_scale_lr.get('base_batch_size'):
            raise ValueError(
                '--auto-scale-lr needs the batch that the rate is meant for: set '
                '`auto_scale_lr.base_batch_size`'
            )
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def train(self):
        """Train, or go on.

        Raises:
            SystemExit: If the training is interrupted. The message says how to go on.
        """
        try:
            return super().train()
        except KeyboardInterrupt:
            raise SystemExit(self._how_to_go_on() if is_main_process() else 1) from None
        finally:
            set_iteration(None)  # what draws later is not of this training

    def _how_to_go_on(self) -> str:
        last = osp.join(self.work_dir, 'last_checkpoint')
        if not osp.isfile(last):
            return 'Interrupted before the first checkpoint.'
        with open(last, encoding='utf-8') as file:
            last = file.read()
        arguments = [a for a in sys.argv[1:] if not a.startswith(('--local_rank', '--local-rank'))]
        *_, package, mim, tools, name = ('', '', '', '', *osp.normpath(sys.argv[0]).split(os.sep))
        if (mim, tools, name) == ('.mim', 'tools', 'train.py'):
            if '--resume' not in arguments:
                arguments.append('--resume')
            command = shlex.join(['mim', 'train', package, *arguments])
        else:
            command = 'the same run with `resume=True`'
        return f'Interrupted in epoch {self.epoch + 1}. {last} is kept. To go on: {command}'


@RUNNERS.register_module()
class FineTuneRunner(DeiTRunner):
    """A :class:`DeiTRunner` for one's own images: what its config leaves open follows from the data.

    See ``configs/finetune/_base_/folder.py`` for the settings. The config that is written into the work
    folder has all of it in place, and runs as it stands.
    """

    @classmethod
    def from_cfg(cls, cfg):
        """Complete a config, then build the runner."""
        cfg = copy.deepcopy(cfg)
        found = complete(cfg)
        cfg.runner_type = 'mmpretrain.DeiTRunner'
        runner = super().from_cfg(cfg)
        for line in found:
            runner.logger.info(line)
        return runner

    def build_model(self, model):
        """As the parent's.

        Raises:
            OSError: If the published weights of a teacher cannot be loaded.
        """
        try:
            return super().build_model(model)
        except OSError as error:
            if not (isinstance(model, dict) and model.get('pretrained')):
                raise
            raise OSError(
                f'The published weights of {model["model_name"]} cannot be loaded ({error}). Start from a '
                'file, `load_from=FILE pretrained=False`, or from random weights, `pretrained=False`'
            ) from error
