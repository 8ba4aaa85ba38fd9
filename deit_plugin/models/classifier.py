"""The classifier with a teacher."""

import torch
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from .dual_logits import (
    check_prediction,
    classifiers,
    dual_logits,
    dual_loss,
    fused_logits,
    leave_out,
    warn_of_untrained,
)
from .image_size import image_size_of_config
from .neck import DistillationTokenNeck
from .taught import TaughtClassifier

_DISTILLED = (
    "`backbone=dict(type='DeiT', distilled=True)`, "
    "`neck=dict(type='DistillationTokenNeck')` and "
    "`head=dict(type='DeiTDualHead')`"
)


@MODELS.register_module()
class DistilledClassifier(TaughtClassifier, ImageClassifier):
    """An ``ImageClassifier`` with a teacher (arXiv 2012.12877, section 4).

    The teacher sees the very tensor that the student sees, after all
    augmentation, renormalised only where its mean and std differ. It is in
    eval mode, under the autocast of the student, and not part of the model:
    see :class:`Teacher`. It is built at the first training step, so testing,
    predicting and exporting need neither it nor its weights.

    Args:
        backbone (dict): The student's backbone, such as :class:`DeiT`.
        neck (dict, optional): Such as :class:`DistillationTokenNeck`.
        head (dict, optional): Such as :class:`DeiTDualHead`, or mmpretrain's
            ``DeiTClsHead``, ``LeViTClsHead`` or ``EfficientFormerClsHead``,
            or any that :func:`classifiers` knows. Its ``loss`` must be a
            :class:`DistillationLoss` if there is a teacher. Any head that
            gives logits serves for the paper's distillation without a token
            (``distill_on='cls'``).
        teacher (dict, optional): The config of any classifier of mmpretrain
            with, beside its own keys, ``checkpoint``. See :class:`Teacher`.
        teacher_labels (dict, optional): Record the teacher's answers, or
            replay them without a teacher: the arguments of
            :class:`TeacherLabels`. Defaults to None: the teacher is asked.
        prediction (str, optional): What evaluation reads of a head with two
            classifiers; see :class:`DeiTDualHead`. Defaults to None: what
            the head says, ``'mean'`` if it says nothing.
        **kwargs: ``train_cfg``, ``data_preprocessor``, ``pretrained`` and
            ``init_cfg`` of mmpretrain's ``ImageClassifier``.

    Raises:
        ValueError: If student, loss and teacher do not fit each other, as far
            as their configs tell; their classes and outputs are compared at
            the first training step.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        teacher: dict | None = None,
        teacher_labels: dict | None = None,
        prediction: str | None = None,
        **kwargs,
    ):
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.set_teacher(teacher, teacher_labels, 'head.loss')
        check_prediction(prediction or 'mean')
        if prediction is not None and classifiers(self.head) is None:
            raise ValueError(
                f'prediction={prediction!r} chooses one of two classifiers, and {type(self.head).__name__} '
                'has but one: leave it out'
            )
        self._prediction = 'mean'
        if prediction is not None:
            self.prediction = prediction
        self.image_size = image_size_of_config(dict(backbone=backbone))
        self._check_tokens()
        self._check_loss()

    @property
    def criterion(self) -> torch.nn.Module | None:
        """The head's loss module."""
        return getattr(self.head, 'loss_module', None)

    @property
    def num_classes(self) -> int | None:
        """The head's."""
        return getattr(self.head, 'num_classes', None)

    @property
    def prediction(self) -> str:
        """What evaluation reads of two classifiers, as the head says where it reads them by itself."""
        return self.head.prediction if self._of_the_head else self._prediction

    @prediction.setter
    def prediction(self, prediction: str):
        if self._of_the_head:
            self.head.prediction = prediction
        self._prediction = prediction

    @property
    def _of_the_head(self) -> bool:
        """Whether the head has two classifiers, and trains and reads both by itself."""
        pair = classifiers(self.head)
        return pair is not None and pair.by_itself

    @property
    def _for_the_head(self) -> bool:
        """Whether the head has two classifiers, but does not train and read both by itself."""
        return classifiers(self.head) is not None and not self._of_the_head

    def _check_tokens(self):
        tokens = getattr(self.backbone, 'num_extra_tokens', None)
        pair = classifiers(self.head)
        reads_two = pair is not None and pair.tokens == 2
        both = isinstance(self.neck, DistillationTokenNeck) and self.neck.token == 'both'
        if reads_two and self._for_the_head and both:
            raise ValueError(
                f'{type(self.head).__name__} takes both tokens from the backbone: leave the '
                "DistillationTokenNeck out, or use `head=dict(type='DeiTDualHead')`"
            )
        if tokens is None:
            return
        for part, needs in (
            (self.neck, isinstance(self.neck, DistillationTokenNeck)),
            (self.head, reads_two),
        ):
            if needs and tokens < 2:
                raise ValueError(
                    f'{type(part).__name__} needs a distillation token, but '
                    f'{type(self.backbone).__name__} has {tokens} extra token(s): use {_DISTILLED}'
                )
        if isinstance(self.neck, DistillationTokenNeck):
            self.neck.num_extra_tokens = tokens

    def _check_loss(self):
        loss, pair = self.distillation, classifiers(self.head)
        if loss is None:
            return
        if pair is None and loss.uses_dist_head:
            has_switch = hasattr(self.head, 'distillation') or hasattr(self.head, 'dist')
            mend = 'set `model.head.distillation=True`' if has_switch else f'use {_DISTILLED}'
            raise ValueError(
                "DistillationLoss(distill_on='dist') needs a distillation head, but the head is "
                f"{type(self.head).__name__} with one classifier: {mend}, or distill_on='cls'. Another head "
                'with two classifiers is made known by `deit_plugin.models.classifiers.register`'
            )
        if pair is not None:
            leave_out(pair.dist, loss)
            warn_of_untrained(loss, 'model.prediction' if self._for_the_head else 'model.head.prediction')

    def _forward(self, inputs: torch.Tensor, data_samples: list | None, mode: str):
        """As mmpretrain's ``ImageClassifier``, of whatever head: the logits (``mode='tensor'``) are both in
        training and what ``prediction`` names in evaluation."""
        if mode == 'tensor' and self._for_the_head:
            feats = self.extract_feat(inputs)
            return dual_logits(self.head, feats) if self.training else self._fused_logits(feats)
        return super()._forward(inputs, data_samples, mode)

    def predict(self, inputs: torch.Tensor, data_samples: list | None = None, **kwargs) -> list[DataSample]:
        """As mmpretrain's ``ImageClassifier``, by what ``prediction`` names, in training mode too."""
        if not self._for_the_head:
            return super().predict(inputs, data_samples, **kwargs)
        return self.head._get_predictions(self._fused_logits(self.extract_feat(inputs)), data_samples)

    def _fused_logits(self, feats: tuple) -> torch.Tensor:
        return fused_logits(self.head, feats, self.prediction)

    def loss(self, inputs: torch.Tensor, data_samples: list[DataSample]) -> dict[str, torch.Tensor]:
        """The losses of a batch.

        Args:
            inputs (torch.Tensor): Preprocessed images (B, 3, H, W).
            data_samples (list[DataSample]): Their labels, ``gt_label`` or, after mixup or cutmix,
                ``gt_score``.

        Returns:
            dict[str, torch.Tensor]: Those of the head; see :class:`DistillationLoss`.
        """
        feats = self.extract_feat(inputs)
        answer = self.answer(inputs)
        if self._for_the_head:
            return dual_loss(self.head, dual_logits(self.head, feats), data_samples, **answer)
        losses = self.head.loss(feats, data_samples, **answer)
        # mmpretrain's heads put whatever their loss gives under one name.
        if isinstance(losses.get('loss'), dict):
            losses.update(losses.pop('loss'))
        return losses
