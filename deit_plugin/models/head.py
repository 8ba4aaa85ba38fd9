"""The dual head of a distilled DeiT."""

import torch
from mmpretrain.models import DeiTClsHead
from mmpretrain.registry import MODELS

from .dual_logits import (
    Classifiers,
    check_prediction,
    classifiers,
    dual_logits,
    dual_loss,
    fused_logits,
    leave_out,
)
from .filled_head import FilledHead
from .loss import Answer, DistillationLoss, Logits


@MODELS.register_module()
class DeiTDualHead(FilledHead, DeiTClsHead):
    """Linear classifiers on the class token (``layers.head``) and on the
    distillation token (``layers.head_dist``).

    Args:
        num_classes (int): Number of classes K.
        in_channels (int): Width C of the tokens.
        prediction (str): What evaluation reads (arXiv 2012.12877, table 3):
            ``'mean'`` the mean of both logits, as the reference code does;
            ``'cls'`` or ``'dist'`` one head alone; ``'mean_softmax'`` the
            mean of both softmaxes, as the paper writes it, returned as its
            logarithm. Set it on the command line by ``--cfg-options
            model.head.prediction=cls``. Defaults to ``'mean'``.
        loss (dict): For training with a teacher a :class:`DistillationLoss`,
            by default the reference's hard distillation; else any
            classification loss of mmpretrain, see :meth:`loss`.
        init_cfg (dict): How the weights are drawn. Defaults to a normal
            distribution of standard deviation 0.02 and zero biases.
        **kwargs: Further arguments of mmpretrain's ``DeiTClsHead``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        prediction: str = 'mean',
        loss: dict = dict(type=DistillationLoss),
        init_cfg: dict = dict(type='TruncNormal', layer='Linear', std=0.02),
        **kwargs,
    ):
        check_prediction(prediction)
        super().__init__(
            num_classes=num_classes, in_channels=in_channels, loss=loss, init_cfg=init_cfg, **kwargs
        )
        self.prediction = prediction
        leave_out(self.layers.head_dist, self.loss_module)

    @property
    def distillation(self) -> DistillationLoss | None:
        """The loss, if it is one that may take a teacher."""
        return self.loss_module if isinstance(self.loss_module, DistillationLoss) else None

    def pre_logits(self, feats: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens ``(cls, dist)``, each (B, C), before the classifiers.

        Args:
            feats (tuple): ``(cls, dist)`` of :class:`DistillationTokenNeck`,
                or the stages of a distilled backbone without a neck, the last
                of which is that pair.
        """
        if isinstance(feats[-1], torch.Tensor):
            feats = (feats,)
        if len(feats[-1]) != 2:
            raise ValueError(
                'DeiTDualHead takes a class and a distillation token, but '
                f'got {len(feats[-1])} feature(s): set `distilled=True` in '
                "the backbone and `neck=dict(type='DistillationTokenNeck')`"
            )
        return super().pre_logits(feats)

    def dual_logits(self, feats: tuple) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits (B, K) of the class head and of the distillation
        head."""
        return dual_logits(self, feats)

    def forward(self, feats: tuple) -> Logits:
        """Both logits (B, K) in training; what ``prediction`` names, (B, K),
        in evaluation."""
        return self.dual_logits(feats) if self.training else self.fused_logits(feats)

    def fused_logits(self, feats: tuple, prediction: str | None = None) -> torch.Tensor:
        """What ``prediction`` names, by default the head's own, (B, K)."""
        return fused_logits(self, feats, prediction or self.prediction)

    def predict(self, feats: tuple, data_samples: list = None) -> list:
        """As mmpretrain's heads, in training mode too."""
        return self._get_predictions(self.fused_logits(feats), data_samples)

    def loss(
        self, feats: tuple, data_samples: list, teacher: Answer | None = None, **kwargs
    ) -> dict[str, torch.Tensor]:
        """The losses of a batch.

        Args:
            feats (tuple): As for :meth:`pre_logits`.
            data_samples (list[DataSample]): Their labels; see :func:`dual_loss`, also for losses other than
                :class:`DistillationLoss`.
            teacher (torch.Tensor | tuple, optional): See :class:`DistillationLoss`.
            **kwargs: For another loss.
        """
        self.unfilled = ()
        return dual_loss(self, self.dual_logits(feats), data_samples, teacher, **kwargs)


@classifiers.register
def _(head: DeiTDualHead):
    return Classifiers(head.layers.head, head.layers.head_dist, tokens=2, by_itself=True)
