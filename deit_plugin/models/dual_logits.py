"""What is made of the two classifiers of any head: logits, losses and predictions."""

import logging
from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmpretrain.models import DeiTClsHead, EfficientFormerClsHead, LeViTClsHead
from mmpretrain.structures import DataSample

from .loss import Answer, DistillationLoss

Pair = tuple[torch.Tensor, torch.Tensor]
PREDICTIONS = ('mean', 'cls', 'dist', 'mean_softmax')


class Classifiers(NamedTuple):
    """The two classifiers of a head, each from features (B, C) to logits (B, K).

    Args:
        cls (nn.Module): Learns from the labels.
        dist (nn.Module): Learns from the teacher.
        tokens (int): 2 if ``head.pre_logits(feats)`` gives the features of either one, 1 if both read the
            same. Defaults to 1.
        by_itself (bool): Whether the head's own ``loss``, ``forward`` and ``predict`` train and read both,
            by its own ``prediction``, as :class:`DeiTDualHead` does. Defaults to False.
    """

    cls: nn.Module
    dist: nn.Module
    tokens: int = 1
    by_itself: bool = False


@singledispatch
def classifiers(head) -> Classifiers | None:
    """The two classifiers of a head of mmpretrain; None if it has one.

    A head of your own, a ``ClsHead`` with ``pre_logits``, gets its distillation by one function::

        @classifiers.register
        def _(head: MyHead):
            return Classifiers(head.fc, head.fc_dist)

    Args:
        head (nn.Module): Any head.
    """
    return None


@classifiers.register
def _(head: DeiTClsHead):
    return Classifiers(head.layers.head, head.layers.head_dist, tokens=2)


@classifiers.register
def _(head: LeViTClsHead):
    return Classifiers(head.head, head.head_dist) if head.distillation else None


@classifiers.register
def _(head: EfficientFormerClsHead):
    return Classifiers(head.head, head.dist_head) if head.dist else None


def features(head: nn.Module, feats: tuple) -> Pair:
    """What the two classifiers read, each (B, C).

    Args:
        head (nn.Module): With two classifiers.
        feats (tuple): Of the backbone or the neck.

    Raises:
        ValueError: If there are not as many features as :class:`Classifiers` says.
    """
    given, tokens = head.pre_logits(feats), classifiers(head).tokens
    number = 1 if isinstance(given, torch.Tensor) else len(given)
    if number != tokens:
        raise ValueError(
            f'{type(head).__name__}.pre_logits gives {number} feature(s) for its two classifiers, and '
            f'`Classifiers(tokens={tokens})` was registered: 1 is a tensor (B, C), 2 are a pair of such'
        )
    return tuple(given) if tokens == 2 else (given, given)


def dual_logits(head: nn.Module, feats: tuple) -> Pair:
    """The logits of both classifiers, each (B, K). Arguments: see :func:`features`."""
    pair, (cls, dist) = classifiers(head), features(head, feats)
    return pair.cls(cls), pair.dist(dist)


def fused_logits(head: nn.Module, feats: tuple, prediction: str) -> torch.Tensor:
    """What a prediction names, (B, K).

    Args:
        head (nn.Module): See :func:`features`.
        feats (tuple): See :func:`features`.
        prediction (str): One of ``PREDICTIONS``; see :class:`DeiTDualHead`.
    """
    if prediction in ('cls', 'dist'):  # the other is not computed
        i = ('cls', 'dist').index(prediction)
        return classifiers(head)[i](features(head, feats)[i])
    return fuse(*dual_logits(head, feats), prediction)


def fuse(cls: torch.Tensor, dist: torch.Tensor, prediction: str = 'mean') -> torch.Tensor:
    """Both logits (B, K) as what a prediction names.

    For ``'mean_softmax'`` these are log-probabilities: their softmax is the mean of the two softmaxes.
    """
    if prediction in ('cls', 'dist'):
        return cls if prediction == 'cls' else dist
    if prediction == 'mean':
        return (cls + dist) / 2
    log_probs = torch.stack([cls, dist]).log_softmax(dim=-1)
    return log_probs.logsumexp(dim=0) - torch.log(log_probs.new_tensor(2.0))


def dual_loss(
    owner: nn.Module,
    logits: Pair,
    data_samples: Sequence[DataSample],
    teacher: Answer | None = None,
    **kwargs,
) -> dict[str, torch.Tensor]:
    """The losses of both logits.

    A :class:`DistillationLoss` gives its parts. Any other one trains both classifiers by the labels, on the
    mean of their logits, which is what the reference's fine-tuning does with a distilled model, as it keeps
    the model in eval mode.

    Args:
        owner (nn.Module): A head, or a ``TimmClassifier``: whose ``loss_module`` it is.
        logits (tuple): Of the class and the distillation head, each (B, K).
        data_samples (list[DataSample]): B labels, ``gt_label`` or, after mixup or cutmix, ``gt_score``.
        teacher (torch.Tensor | tuple, optional): See :class:`DistillationLoss`.
        **kwargs: For another loss.
    """
    if not isinstance(owner.loss_module, DistillationLoss):
        return owner._get_loss(fuse(*logits), data_samples, **kwargs)
    if 'gt_score' in data_samples[0]:
        target = torch.stack([sample.gt_score for sample in data_samples])
    else:
        target = torch.cat([sample.gt_label for sample in data_samples])
    return owner.loss_module(logits, target, teacher)


def check_prediction(prediction: str):
    """Raise a ValueError if there is none of that name."""
    if prediction not in PREDICTIONS:
        raise ValueError(f'prediction={prediction!r} is unknown: choose one of {PREDICTIONS}')


def leave_out(dist: nn.Module | nn.Parameter, loss: nn.Module):
    """Freeze a distillation head that a loss does not train.

    As in the reference, it has no gradient and so no weight decay either; and DDP does not wait for it.
    """
    if isinstance(loss, DistillationLoss) and not loss.uses_dist_head:
        dist.requires_grad_(False)


def warn_of_untrained(loss: DistillationLoss, option: str):
    """Say that a distillation head stays as it is, if so.

    Args:
        loss (DistillationLoss): Of the student.
        option (str): Where ``prediction`` is set in a config.
    """
    if not loss.uses_dist_head:
        print_log(
            f"{loss} leaves the distillation head untrained: evaluate with {option}='cls'",
            logger='current',
            level=logging.WARNING,
        )
