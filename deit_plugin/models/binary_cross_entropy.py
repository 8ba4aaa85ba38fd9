"""The binary cross-entropy of DeiT III."""

import torch
from mmpretrain.registry import MODELS
from timm.loss import BinaryCrossEntropy

from .loss import full_precision


@MODELS.register_module()
class BinaryCrossEntropyLoss(BinaryCrossEntropy):
    """Each class is asked for by itself: timm's ``BinaryCrossEntropy`` as a loss of mmpretrain's heads.

    The mean over images and classes. mmpretrain's ``CrossEntropyLoss(use_sigmoid=True)`` divides by the
    images alone, so its loss is K times as large, and has no threshold.

    Args:
        target_threshold (float, optional): Mixed labels above it are 1 and all others 0, as
            facebookresearch/deit at ``7e160fe`` has it with ``--bce-loss``; in [0, 1). None: they are taken
            as they are. Defaults to 0.
        smoothing (float): Of labels that are indices, in [0, 1). Defaults to 0.

    Raises:
        ValueError: If an argument is out of range, or a threshold would undo the smoothing.
    """

    def __init__(self, target_threshold: float | None = 0.0, smoothing: float = 0.0):
        if not 0 <= smoothing < 1:
            raise ValueError(f'smoothing={smoothing} is not in [0, 1)')
        if target_threshold is not None and not 0 <= target_threshold < 1:
            raise ValueError(f'target_threshold={target_threshold} is not in [0, 1)')
        if smoothing and target_threshold is not None:
            raise ValueError(
                f'smoothing={smoothing} makes every class a target above target_threshold='
                f'{target_threshold}: set target_threshold=None'
            )
        super().__init__(smoothing, target_threshold)

    def forward(self, cls_score: torch.Tensor, label: torch.Tensor, **kwargs) -> torch.Tensor:
        """The loss.

        Args:
            cls_score (torch.Tensor): Logits (B, K).
            label (torch.Tensor): Classes (B, ), int64, or probabilities (B, K).
            **kwargs: What mmpretrain's heads give besides (``avg_factor``) is not needed.
        """
        return super().forward(full_precision(cls_score), label)
