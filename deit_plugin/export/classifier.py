"""A classifier as it is exported: images in, logits out."""

import torch
import torch.nn as nn
from mmpretrain.models import BaseClassifier

from ..models.dual_logits import classifiers, features
from ..models.two_heads import two_heads
from .formats import HEADS


class ExportedClassifier(nn.Module):
    """What is exported of a classifier.

    Args:
        model (BaseClassifier): In evaluation mode.
        head (str, optional): Of a model with two classifiers, what is given: ``'both'`` logits, or what a
            ``prediction`` of :class:`DeiTDualHead` names. The mean of a DeiT's is one linear layer on
            both tokens.
            Defaults to None: the model's own ``prediction``.
        preparation (nn.Module, optional): What is done to the images first.

    Raises:
        ValueError: If the head is unknown, or the model has but one.
    """

    def __init__(self, model: BaseClassifier, head: str | None = None, preparation: nn.Module | None = None):
        super().__init__()
        dual = two_heads(model)
        if dual is None:
            if head is not None:
                raise ValueError(f'--head {head}: {type(model).__name__} has one classifier, leave it out')
            self.names = ('logits',)
        else:
            head = head or dual.prediction
            if head not in HEADS:
                raise ValueError(f'--head {head!r} is unknown: choose one of {HEADS}')
            self.names = ('class_logits', 'distillation_logits') if head == 'both' else ('logits',)
        self.model, self.head, self.preparation = model, head, preparation
        self.fused = fused_linear(getattr(model, 'head', None)) if head == 'mean' else None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images (B, 3, H, W), or as the preparation takes them, to logits (B, K) by ``names``."""
        return self.of_prepared(images if self.preparation is None else self.preparation(images))

    def of_prepared(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W), as the model takes them, to logits."""
        if self.head is None:
            return (self.model(images, mode='tensor'),)
        if self.fused is not None:
            tokens = features(self.model.head, self.model.extract_feat(images))
            return (self.fused(torch.cat(tokens, dim=1)),)
        dual = two_heads(self.model)
        return dual.dual_logits(images) if self.head == 'both' else (dual.fused_logits(images, self.head),)


def fused_linear(head: nn.Module | None) -> nn.Linear | None:
    """The mean of both classifiers as one on both tokens: (B, 2C) to (B, K). None if they read the same
    features, or are no linear layers."""
    pair = classifiers(head)
    if pair is None or pair.tokens != 2 or not all(type(layer) is nn.Linear for layer in pair[:2]):
        return None
    cls, dist = pair.cls, pair.dist
    fused = nn.Linear(cls.in_features + dist.in_features, cls.out_features)
    with torch.no_grad():
        fused.weight.copy_(torch.cat([cls.weight, dist.weight], dim=1) / 2)
        fused.bias.copy_((cls.bias + dist.bias) / 2)
    return fused.to(cls.weight)
