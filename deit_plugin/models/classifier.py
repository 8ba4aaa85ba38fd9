"""The classifier with a teacher."""

import logging

import torch
from mmengine.logging import print_log
from mmpretrain.models import ClsHead, DeiTClsHead, EfficientFormerClsHead, ImageClassifier, LeViTClsHead
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from .head import DeiTDualHead
from .loss import DistillationLoss
from .neck import DistillationTokenNeck
from .teacher import Teacher
from .teacher_labels import TeacherLabels

_DISTILLED = (
    "`backbone=dict(type='DeiT', distilled=True)`, "
    "`neck=dict(type='DistillationTokenNeck')` and "
    "`head=dict(type='DeiTDualHead')`"
)


def _has_two_classifiers(head) -> bool:
    """Whether it is a head of mmpretrain with a second classifier, for a teacher."""
    if isinstance(head, LeViTClsHead):
        return head.distillation
    return isinstance(head, DeiTClsHead) or isinstance(head, EfficientFormerClsHead) and head.dist


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    """An ``ImageClassifier`` with a teacher (arXiv 2012.12877, section 4).

    The teacher sees the very tensor that the student sees, after all
    augmentation, renormalised only where its mean and std differ. It is in
    eval mode, under the autocast of the student, and not part of the model:
    see :class:`Teacher`. It is built at the first training step, so testing,
    predicting and exporting need neither it nor its weights.

    Args:
        backbone (dict): The student's backbone, such as :class:`DeiT`.
        neck (dict, optional): Such as :class:`DistillationTokenNeck`.
        head (dict, optional): Such as :class:`DeiTDualHead`. Its ``loss``
            must be a :class:`DistillationLoss` if there is a teacher. Any
            head of mmpretrain that gives logits serves for the paper's
            distillation without a token (``distill_on='cls'``).
        teacher (dict, optional): The config of any classifier of mmpretrain
            with, beside its own keys, ``checkpoint``. See :class:`Teacher`.
        teacher_labels (dict, optional): Record the teacher's answers, or
            replay them without a teacher: the arguments of
            :class:`TeacherLabels`. Defaults to None: the teacher is asked.
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
        **kwargs,
    ):
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.teacher = None if teacher is None else Teacher(teacher, self.data_preprocessor)
        self.teacher_labels = None
        if teacher_labels is not None:
            if teacher is None:
                raise ValueError('teacher_labels are the answers of a teacher: set `model.teacher`')
            self.teacher_labels = TeacherLabels(self.teacher, **teacher_labels)
        self._check_tokens()
        self._check_loss(getattr(self.head, 'loss_module', None))

    @property
    def distillation(self) -> DistillationLoss | None:
        """The head's loss, if it is one that may take a teacher."""
        loss = getattr(self.head, 'loss_module', None)
        return loss if isinstance(loss, DistillationLoss) else None

    def _check_tokens(self):
        tokens = getattr(self.backbone, 'num_extra_tokens', None)
        if tokens is None:
            return
        for part in (self.neck, self.head):
            if isinstance(part, (DistillationTokenNeck, DeiTDualHead)) and tokens < 2:
                raise ValueError(
                    f'{type(part).__name__} needs a distillation token, but '
                    f'{type(self.backbone).__name__} has {tokens} extra token(s): use {_DISTILLED}'
                )
        if isinstance(self.neck, DistillationTokenNeck):
            self.neck.num_extra_tokens = tokens

    def _check_loss(self, loss):
        if self.distillation is None:
            if self.teacher is not None:
                raise ValueError(
                    f'DistilledClassifier has a teacher, but head.loss is {type(loss).__name__}, which '
                    "asks none: set `head.loss=dict(type='DistillationLoss')`"
                )
            return
        dual = isinstance(self.head, DeiTDualHead)
        if dual and not loss.uses_dist_head:
            print_log(
                f"{loss} leaves the distillation head untrained: evaluate with head.prediction='cls'",
                logger='current',
                level=logging.WARNING,
            )
        if loss.uses_dist_head and not dual and isinstance(self.head, ClsHead):
            raise ValueError(
                "DistillationLoss(distill_on='dist') needs a distillation head, but the head is "
                f"{type(self.head).__name__}: use {_DISTILLED}, or distill_on='cls'"
            )
        if not dual and _has_two_classifiers(self.head):
            raise ValueError(
                f'{type(self.head).__name__} trains the mean of its two classifiers, whatever '
                f'{loss} says: use {_DISTILLED}, or a head with one classifier'
            )

    def check_teacher(self):
        """Compare the classes of student and teacher, as far as the config of the teacher tells.

        A training asks before its first step; evaluation has no teacher to ask.

        Raises:
            ValueError: If they differ.
        """
        if self.teacher is None or self.distillation.mode == 'none':
            return
        own, other = self.head.num_classes, self.teacher.num_classes
        if None not in (own, other) and own != other:
            raise ValueError(
                f'The student has {own} classes and the teacher {other}: set `num_classes` of both to that '
                'of the data'
            )

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
        answer = {}
        self.check_teacher()
        if self.teacher is not None and self.distillation.mode != 'none':
            # Recorded are the answers of the training alone.
            ask = (self.training and self.teacher_labels) or self.teacher
            answer = dict(teacher=ask(inputs))
        losses = self.head.loss(feats, data_samples, **answer)
        # mmpretrain's heads put whatever their loss gives under one name.
        if isinstance(losses.get('loss'), dict):
            losses.update(losses.pop('loss'))
        return losses
