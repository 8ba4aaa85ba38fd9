"""What the model gets in a training, without the training."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.models import BaseSelfSupervisor, ImageClassifier
from mmpretrain.registry import MODELS
from torch.utils.data import DataLoader

from ..datasets import DeiTImageProcessor
from ..datasets.seeded import place_draws
from ..draws import draws_put_back, set_iteration
from ..engine.runner import DeiTRunner
from ..engine.utils import into_the_file
from .configs import type_name


class TrainingBatches:
    """The batches of a training by a single process, as its model gets them; no model is built.

    They are those of :class:`SeedHook`, to the bit on a CPU. Iterating gives pairs of the iteration, counted
    from 0 over the whole training, and what the model gets: ``inputs``, (B, C, H, W), and ``data_samples``.

    Args:
        cfg (Config): Of the training, complete (:func:`read_data_config`).
        epoch (int): The one to begin with, counted from 0. Defaults to 0.

    Attributes:
        classes (Sequence[str] | None): The names of the classes, as far as the data set knows them.
        seed (int): Of the training.
        first (int): The first iteration.
        notes (list[str]): Why a training may draw something else.

    Raises:
        OSError: If there are no data.
        ValueError: If the config has no data to train on, no such epoch, or an unknown model.
    """

    def __init__(self, cfg: Config, epoch: int = 0):
        if not cfg.get('train_dataloader'):
            raise ValueError('The config has no train_dataloader: take the config of a training')
        epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
        if epoch < 0 or epochs is not None and epoch >= epochs:
            raise ValueError(f'--epoch {epoch} must be 0 to {"..." if epochs is None else epochs - 1}')
        self.scope = cfg.get('default_scope') or 'mmpretrain'
        self.epoch, self.notes = epoch, []
        self.seed = self._seed(cfg)
        with DefaultScope.overwrite_default_scope(self.scope):
            try:
                self.loader = _build_loader(cfg, self.seed)
                self.preprocessor = build_preprocessor(cfg)
            except (KeyError, TypeError, AssertionError) as error:  # mmengine's and mmpretrain's
                said = str(error).strip()
                raise ValueError(f'The data or their preprocessor cannot be built: {said}') from error
        sampler = place_draws(self.loader, self.seed)
        if epoch and isinstance(sampler.sampler, InfiniteSampler):
            raise ValueError(f'--epoch {epoch}: an InfiniteSampler has no epochs but the first, 0')
        self.first = epoch * len(self.loader)
        self.classes = (getattr(self.loader.dataset, 'metainfo', None) or {}).get('classes')
        given = _given_preprocessor(cfg)
        self._takes_rgb = bool(given.get('to_rgb') or given.get('bgr_to_rgb'))
        self._takes_normalized = bool(given.get('normalized_input'))
        self._were_normalized = False

    def _seed(self, cfg: Config) -> int:
        hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
        if any(hook and type_name(hook) == 'SwitchRecipeHook' for hook in hooks):
            self.notes.append('What its SwitchRecipeHook changes is not drawn')
        seed = (cfg.get('randomness') or {}).get('seed')
        if not any(hook and type_name(hook) == 'SeedHook' for hook in hooks):
            self.notes.append('Without a SeedHook a training by this config draws other crops and mixtures')
        elif seed is None:
            self.notes.append('The config sets no `randomness.seed`, so each training draws its own; here 0')
        return seed or 0

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        sampler = self.loader.batch_sampler.sampler
        sampler.epoch = self.epoch
        if hasattr(sampler.sampler, 'set_epoch'):
            sampler.sampler.set_epoch(self.epoch)
        with draws_put_back():
            batches = iter(self.loader)
        for iteration in range(self.first, self.first + len(self.loader)):
            with draws_put_back(), DefaultScope.overwrite_default_scope(self.scope):
                batch = next(batches)
                set_iteration(sampler.virtual.at(self.seed, iteration, self.loader.batch_size))
                self._were_normalized = self._takes_normalized and batch['inputs'][0].is_floating_point()
                seen = self.preprocessor(batch, training=True)
                set_iteration(None)
            yield iteration, seen

    def to_pixels(self, inputs: torch.Tensor) -> list[np.ndarray]:
        """Images of the latest batch as they are shown, (H, W, 3) uint8 RGB each.

        Args:
            inputs (torch.Tensor): (B, C, H, W), as the model gets it.

        Raises:
            ValueError: If these are no images of one or three channels.
        """
        if not isinstance(inputs, torch.Tensor) or inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
            raise ValueError(
                f'Only images of one or three channels can be drawn, and one view of each: got '
                f'{tuple(inputs.shape) if isinstance(inputs, torch.Tensor) else type(inputs).__name__}'
            )
        mean, std = self._mean_and_std()
        pixels = inputs.float() * std + mean
        if pixels.shape[1] == 1:
            pixels = pixels.expand(-1, 3, -1, -1)
        elif not (self._takes_rgb or self._were_normalized):
            pixels = pixels.flip(1)  # mmpretrain reads BGR
        return list(pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy())

    def _mean_and_std(self) -> tuple[torch.Tensor, torch.Tensor]:
        """In levels of 0 to 255, (C, 1, 1) each or a scalar."""
        mean, std = (getattr(self.preprocessor, name, None) for name in ('mean', 'std'))
        if self._were_normalized:
            steps = getattr(getattr(self.loader.dataset, 'pipeline', None), 'transforms', ())
            for step in steps:
                if isinstance(step, DeiTImageProcessor):
                    return tuple(
                        _levels(255 * np.array(step.cfg[name])) for name in ('image_mean', 'image_std')
                    )
            if mean is None:  # whatever they were normalised by
                return _levels(127.5), _levels(127.5)
        return (_levels(0.0), _levels(1.0)) if mean is None else (mean, std)


def _levels(values) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1)


def _build_loader(cfg: Config, seed: int) -> DataLoader:
    # In this process: what is drawn follows from the place of a sample, not from the worker.
    loader = {k: v for k, v in cfg.train_dataloader.items() if k not in _OF_WORKERS}
    return DeiTRunner.build_dataloader(dict(loader, num_workers=0), seed=seed)


_OF_WORKERS = ('num_workers', 'persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')


def _given_preprocessor(cfg: Config) -> dict:
    """As the runner puts it into the model."""
    return dict(cfg.model.get('data_preprocessor', cfg.get('data_preprocessor')) or {})


def build_preprocessor(cfg: Config) -> nn.Module:
    """The data preprocessor that the model of a config has, with the mixing of its ``train_cfg``.

    Args:
        cfg (Config): With ``model``.

    Raises:
        ValueError: If the config has no model, or an unknown one.
    """
    kind = (cfg.get('model') or {}).get('type')
    model = MODELS.get(kind) if isinstance(kind, str) else kind
    if model is None:
        raise ValueError(f'The config has no model that is known (model.type={kind!r})')
    given, train_cfg = copy.deepcopy(_given_preprocessor(cfg)), copy.deepcopy(cfg.model.get('train_cfg'))
    with into_the_file(MMLogger.get_current_instance()):  # mmpretrain says that labels are one-hot
        if issubclass(model, ImageClassifier):  # whose constructor puts the two together
            made = ImageClassifier(nn.Identity(), data_preprocessor=given, train_cfg=train_cfg)
            return made.data_preprocessor
        self_supervised = issubclass(model, BaseSelfSupervisor)
        given.setdefault('type', 'SelfSupDataPreprocessor' if self_supervised else 'ClsDataPreprocessor')
        if train_cfg and 'augments' in train_cfg and not self_supervised:  # as in those for timm's models
            given['batch_augments'] = train_cfg
        return MODELS.build(given)
