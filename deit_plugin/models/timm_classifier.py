"""A student of timm."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.nn as nn
from mmpretrain.models import TimmClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from .dual_logits import Pair, check_prediction, dual_loss, fuse, leave_out, warn_of_untrained
from .image_size import image_size_of_config
from .loaded import keep_weights
from .loss import DistillationLoss
from .taught import TaughtClassifier


@MODELS.register_module()
class DistilledTimmClassifier(TaughtClassifier, TimmClassifier):
    """Any model of timm with a teacher, through its own distillation head where it has one.

    Models with ``set_distilled_training`` have one: DeiT, LeViT, PiT, EfficientFormer, EfficientFormer V2,
    RepViT, SwiftFormer, and EfficientViM and iFormer with ``distillation=True``. All others serve for
    distillation without a token (``distill_on='cls'``), such as FastViT.

    Parameters are called ``model.`` and timm's name, in checkpoints too. (mmpretrain's ``TimmClassifier``
    saves them without ``model.``, but not below a moving average, and then its training stops.) Weights by
    timm's names are loaded as well.

    Args:
        model_name (str): Of timm.
        teacher (dict, optional): See :class:`DistilledClassifier`.
        teacher_labels (dict, optional): See :class:`DistilledClassifier`.
        loss (dict): A :class:`DistillationLoss` if there is a teacher; else any classification loss of
            mmpretrain. Defaults to the former.
        prediction (str): What evaluation reads; see :class:`DeiTDualHead`. Defaults to ``'mean'``, as timm
            does.
        **kwargs: ``train_cfg``, ``data_preprocessor``, ``with_cp`` and ``init_cfg`` (which pretrained weights
            ignore) of mmpretrain's ``TimmClassifier``, and arguments of timm's ``create_model``:
            ``num_classes``, ``pretrained``, ``checkpoint_path``, ``img_size``, ``drop_path_rate`` and so on.

    Raises:
        ValueError: If the model has no distillation head and the loss needs one, or ``prediction``.
    """

    def __init__(
        self,
        model_name: str,
        teacher: dict | None = None,
        teacher_labels: dict | None = None,
        loss: dict = dict(type=DistillationLoss),
        prediction: str = 'mean',
        **kwargs,
    ):
        if kwargs.get('pretrained') or kwargs.get('checkpoint_path'):
            kwargs.pop('init_cfg', None)  # it would draw over them
        super().__init__(model_name, loss=loss, **kwargs)
        if not self.num_classes:
            raise ValueError(
                f'{model_name} gives features, no logits: leave `features_only` out and set `num_classes` to '
                'that of the data'
            )
        self.set_teacher(teacher, teacher_labels, 'model.loss')
        check_prediction(prediction)
        self.prediction = prediction
        self._switch = _switch_of(self.model)
        self.image_size = image_size_of_config(dict(kwargs, model_name=model_name))
        keep_weights(self)
        self.register_load_state_dict_post_hook(_forget_biases)
        if self._switch is None:
            self._check_single(model_name, kwargs)
            return
        self.model.set_distilled_training(True)
        if self.distillation is not None:
            for dist in _distillation_head(self.model):
                leave_out(dist, self.distillation)
            warn_of_untrained(self.distillation, 'model.prediction')

    @staticmethod
    def _remove_state_dict_prefix(self, state_dict, prefix, local_metadata):
        pass  # mmpretrain registers it

    def _add_state_dict_prefix(self, state_dict: dict, prefix: str, *args):
        for name in self.model.state_dict():
            if prefix + name in state_dict and f'{prefix}model.{name}' not in state_dict:
                state_dict[f'{prefix}model.{name}'] = state_dict.pop(prefix + name)

    def _check_single(self, name: str, options: dict):
        needs = None
        if self.distillation is not None and self.distillation.uses_dist_head:
            needs = "DistillationLoss(distill_on='dist')"
        elif self.prediction != 'mean':
            needs = f'prediction={self.prediction!r}'
        if needs:
            given = [f'{k}={options[k]!r}' for k in ('distillation', 'distilled') if k in options]
            raise ValueError(
                f'{needs} needs a distillation head, and {name} of timm has none'
                + (f' with {given[0]}' if given else '')
                + ': choose a model with one, such as levit_128s, repvit_m0_9, or '
                'deit_tiny_distilled_patch16_224 (some need `model.distillation=True`), or set '
                "`model.loss.distill_on='cls'`"
            )

    @property
    def criterion(self) -> nn.Module:
        """The loss module."""
        return self.loss_module

    @property
    def num_classes(self) -> int | None:
        """As the model of timm says."""
        return getattr(self.model, 'num_classes', None)

    @property
    def has_two_heads(self) -> bool:
        """Whether the model of timm has a distillation head."""
        return self._switch is not None

    def dual_logits(self, inputs: torch.Tensor) -> Pair:
        """The logits (B, K) of both heads, in either mode, for preprocessed images (B, 3, H, W).

        Raises:
            ValueError: If the model gives but one.
        """
        if self._switch is None:
            raise ValueError(f'{type(self.model).__name__} of timm has no distillation head')
        switch = self.model.get_submodule(self._switch)
        with nullcontext() if switch.training else _both(switch):
            return self.model(inputs)

    def _forward(self, inputs: torch.Tensor, data_samples: list | None, mode: str):
        """As mmpretrain's classifiers: the logits (``mode='tensor'``) are both in training and what
        ``prediction`` names in evaluation."""
        if mode == 'tensor' and self._switch is not None and not self.training:
            return self.fused_logits(inputs)
        return super()._forward(inputs, data_samples, mode)

    def fused_logits(self, inputs: torch.Tensor, prediction: str | None = None) -> torch.Tensor:
        """What ``prediction`` names, by default the model's own, (B, K)."""
        prediction = prediction or self.prediction
        if self._switch is None or prediction == 'mean' and not self.training:
            return self.model(inputs)  # timm's own
        return fuse(*self.dual_logits(inputs), prediction)

    def predict(self, inputs: torch.Tensor, data_samples: list | None = None) -> list[DataSample]:
        """As mmpretrain's, by what ``prediction`` names, in training mode too."""
        return self._get_predictions(self.fused_logits(inputs), data_samples)

    def loss(self, inputs: torch.Tensor, data_samples: list[DataSample]) -> dict[str, torch.Tensor]:
        """The losses of a batch; see :meth:`DistilledClassifier.loss`."""
        answer = self.answer(inputs)
        if self._switch is not None:
            return dual_loss(self, self.dual_logits(inputs), data_samples, **answer)
        losses = self._get_loss(self.model(inputs), data_samples, **answer)
        return losses['loss'] if isinstance(losses['loss'], dict) else losses


def _forget_biases(classifier: nn.Module, *args):
    """timm's LeViT and EfficientFormer keep for evaluation what they have gathered from their biases."""
    for module in classifier.modules():
        if isinstance(cache := getattr(module, 'attention_bias_cache', None), dict):
            cache.clear()


def _distillation_head(model: nn.Module) -> list[nn.Parameter]:
    """Its parameters; timm calls it ``head_dist``, or ``heads_dist`` with their ``weights_dist``."""
    named = model.named_parameters()
    return [p for name, p in named if re.search(r'(^|\.)(head|heads|weights)_dist(\.|$)', name)]


def _switch_of(model: nn.Module) -> str | None:
    """The module that timm's ``set_distilled_training`` switches: the model ('') or its head. None without a
    distillation head."""
    if not hasattr(model, 'set_distilled_training') or not _distillation_head(model):
        return None
    return next(name for name, module in model.named_modules() if hasattr(module, 'distilled_training'))


@contextmanager
def _both(switch: nn.Module) -> Iterator[None]:
    """timm gives both logits in training mode alone. The modules below keep theirs."""
    before, switch.training = switch.training, True
    try:
        yield
    finally:
        switch.training = before
