"""Co-training of two submodels (Touvron et al. 2022, arXiv 2212.04884)."""

import torch
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

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
        ValueError: If the backbone's ``drop_path_rate`` is 0, which makes one and the same submodel.
    """

    def __init__(self, backbone: dict, **kwargs):
        if not backbone.get('drop_path_rate'):
            raise ValueError(
                'CosubClassifier makes its two submodels by drop path, but `model.backbone` has '
                f'drop_path_rate={backbone.get("drop_path_rate", 0)}: set one above 0'
            )
        super().__init__(backbone, **kwargs)

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


def _towards(logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    target = full_precision(other.detach()).sigmoid()
    return F.binary_cross_entropy_with_logits(full_precision(logits), target)
