"""A classifier as it is exported: images in, logits out."""

import torch
import torch.nn as nn
from mmpretrain.models import BaseClassifier

from ..models import DeiTDualHead
from .formats import HEADS


class ExportedClassifier(nn.Module):
    """What is exported of a classifier.

    Args:
        model (BaseClassifier): In evaluation mode.
        head (str, optional): Of a model with two classifiers, what is given: ``'both'`` logits, or what a
            ``prediction`` of :class:`DeiTDualHead` names. Their mean is one linear layer on both tokens.
            Defaults to None: the model's own ``prediction``.
        preparation (nn.Module, optional): What is done to the images first.

    Raises:
        ValueError: If the head is unknown, or the model has but one.
    """

    def __init__(self, model: BaseClassifier, head: str | None = None, preparation: nn.Module | None = None):
        super().__init__()
        dual = getattr(model, 'head', None)
        if not isinstance(dual, DeiTDualHead):
            if head is not None:
                raise ValueError(f'--head {head}: {type(model).__name__} has one classifier, leave it out')
            self.names = ('logits',)
        else:
            head = head or dual.prediction
            if head not in HEADS:
                raise ValueError(f'--head {head!r} is unknown: choose one of {HEADS}')
            self.names = ('class_logits', 'distillation_logits') if head == 'both' else ('logits',)
        self.model, self.head, self.preparation = model, head, preparation
        self.fused = fused_linear(dual) if head == 'mean' else None

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Images (B, 3, H, W), or as the preparation takes them, to logits (B, K) by ``names``."""
        return self.of_prepared(images if self.preparation is None else self.preparation(images))

    def of_prepared(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W), as the model takes them, to logits."""
        if self.head is None:
            return (self.model(images, mode='tensor'),)
        feats, head = self.model.extract_feat(images), self.model.head
        if self.head == 'both':
            return head.dual_logits(feats)
        if self.fused is not None:
            return (self.fused(torch.cat(head.pre_logits(feats), dim=1)),)
        return (head.fused_logits(feats, self.head),)


def fused_linear(head: DeiTDualHead) -> nn.Linear:
    """The mean of both classifiers as one on both tokens: (B, 2C) to (B, K)."""
    layers = head.layers.head, head.layers.head_dist
    fused = nn.Linear(2 * layers[0].in_features, layers[0].out_features)
    with torch.no_grad():
        fused.weight.copy_(torch.cat([layer.weight for layer in layers], dim=1) / 2)
        fused.bias.copy_(sum(layer.bias for layer in layers) / 2)
    return fused.to(layers[0].weight)
