"""The two heads of a classifier of any kind."""

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import torch
from mmpretrain.models import ImageClassifier

from .dual_logits import Pair, classifiers, dual_logits, fused_logits
from .timm_classifier import DistilledTimmClassifier


class TwoHeads(NamedTuple):
    """What a classifier with two heads says of preprocessed images (B, 3, H, W).

    prediction (str): What its evaluation reads; see :class:`DeiTDualHead`.
    dual_logits (Callable): From images to the logits (B, K) of both heads.
    fused_logits (Callable): From images and a prediction to what that names, (B, K).
    """

    prediction: str
    dual_logits: Callable[[torch.Tensor], Pair]
    fused_logits: Callable[[torch.Tensor, str], torch.Tensor]


@singledispatch
def two_heads(model) -> TwoHeads | None:
    """The two heads of a classifier; None if it has one.

    An ``ImageClassifier`` has as many as :func:`classifiers` knows of its head. Another kind of classifier
    is made known by ``two_heads.register``.

    Args:
        model (BaseClassifier): Any, with a teacher or without.
    """
    return None


@two_heads.register
def _(model: ImageClassifier):
    head = model.head if model.with_head else None
    pair = classifiers(head)
    if pair is None:
        return None
    return TwoHeads(
        head.prediction if pair.by_itself else getattr(model, 'prediction', 'mean'),
        lambda images: dual_logits(head, model.extract_feat(images)),
        lambda images, prediction: fused_logits(head, model.extract_feat(images), prediction),
    )


@two_heads.register
def _(model: DistilledTimmClassifier):
    if not model.has_two_heads:
        return None
    return TwoHeads(model.prediction, model.dual_logits, model.fused_logits)
