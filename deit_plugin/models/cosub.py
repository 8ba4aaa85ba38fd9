"""Co-training of two submodels (Touvron et al. 2022, arXiv 2212.04884)."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from .dual_logits import classifiers
from .loss import full_precision


@MODELS.register_module()
class CosubClassifier(ImageClassifier):
    """An ``ImageClassifier`` whose drop path makes two submodels of it, which teach each other.

    In training each batch passes twice. With the logits z and z' of both, their sigmoids s and s', the labels
    y and the binary cross-entropy B the loss is, as facebookresearch/deit at ``7e160fe`` has it with
    ``--cosub``, (B(z, y) + B(z', y) + B(z, s') + B(z', s)) / 4; no gradient goes through s and s'. There both
    passes are one batch twice as large: the same without batch norm.

    Args:
        backbone (dict): With drop path, such as :class:`DeiTIII`.
        head (dict): With one classifier. Its ``loss`` is B for the labels: the reference's is
            :class:`BinaryCrossEntropyLoss` with ``target_threshold=None``.
        **kwargs: As for mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: If no layer that is trained has drop path, which makes one and the same submodel, or if
            the head has two classifiers.
    """

    def __init__(self, backbone: dict, **kwargs):
        super().__init__(backbone, **kwargs)
        if not any(_drops(module) for module in self.train().modules()):
            raise ValueError(
                'CosubClassifier makes its two submodels by drop path, and in training nothing of '
                f'`model.backbone` drops (drop_path_rate={backbone.get("drop_path_rate", 0)}, frozen_stages='
                f'{backbone.get("frozen_stages", -1)}): set drop_path_rate above 0 and train these layers'
            )
        if self.with_head and classifiers(self.head) is not None:
            raise ValueError(
                f'CosubClassifier trains one classifier, and {type(self.head).__name__} has two: take '
                "head=dict(type='DeiTHead'), and distilled=False"
            )

    def loss(self, inputs: torch.Tensor, data_samples: list[DataSample]) -> dict[str, torch.Tensor]:
        """The losses of a batch.

        Args:
            inputs (torch.Tensor): Preprocessed images (B, 3, H, W).
            data_samples (list[DataSample]): Their labels.

        Returns:
            dict: ``loss_cls``, half of both terms of the labels, and ``loss_cosub``, half of what the
            submodels teach each other; their sum is the loss.
        """
        one, two = (self.head(self.extract_feat(inputs)) for _ in 'ab')
        of_labels = [self.head._get_loss(logits, data_samples)['loss'] for logits in (one, two)]
        mutual = _towards(one, two) + _towards(two, one)
        return dict(loss_cls=sum(of_labels) / 4, loss_cosub=mutual / 4)


def _drops(module: nn.Module) -> bool:
    return module.training and type(module).__name__ == 'DropPath' and bool(module.drop_prob)


def _towards(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    target = full_precision(other.detach()).sigmoid()
    return F.binary_cross_entropy_with_logits(full_precision(logits), target)
