"""A classifier that learns from its labels and from a teacher."""
import logging
from typing import Dict, List, Optional

import torch
from mmengine.logging import print_log
from mmpretrain.models import ClsHead, ImageClassifier
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from .head import DeiTDualHead, fuse
from .loss import DistillationLoss, Logits, first_class
from .neck import DistillationTokenNeck
from .teacher import Teacher
from .teacher_labels import TeacherLabels

_DISTILLED = ("`backbone=dict(type='DeiT', distilled=True)`, "
              "`neck=dict(type='DistillationTokenNeck')` and "
              "`head=dict(type='DeiTDualHead')`")


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
            as their configs tell; what only their outputs tell is raised at
            the first training step.
    """

    def __init__(self,
                 backbone: dict,
                 neck: Optional[dict] = None,
                 head: Optional[dict] = None,
                 teacher: Optional[dict] = None,
                 teacher_labels: Optional[dict] = None,
                 **kwargs):
        super().__init__(backbone=backbone, neck=neck, head=head, **kwargs)
        self.teacher = None if teacher is None \
            else Teacher(teacher, self.data_preprocessor)
        self.teacher_labels = None
        if teacher_labels is not None:
            if teacher is None:
                raise ValueError('teacher_labels are the answers of a '
                                 'teacher: set `model.teacher`')
            self.teacher_labels = TeacherLabels(self.teacher, **teacher_labels)
        self._check_tokens()
        self._check_loss()

    def _check_tokens(self):
        tokens = getattr(self.backbone, 'num_extra_tokens', None)
        for part in (self.neck, self.head):
            if isinstance(part, (DistillationTokenNeck, DeiTDualHead)) \
                    and tokens is not None and tokens < 2:
                raise ValueError(
                    f'{type(part).__name__} needs a distillation token, but '
                    f'{type(self.backbone).__name__} has {tokens} extra '
                    f'token(s): use {_DISTILLED}')

    def _check_loss(self):
        loss = getattr(self.head, 'loss_module', None)
        dual = isinstance(self.head, DeiTDualHead)
        if not isinstance(loss, DistillationLoss):
            if self.teacher is not None:
                raise ValueError(
                    'DistilledClassifier has a teacher, but head.loss is '
                    f'{type(loss).__name__}, which asks none: set '
                    "`head.loss=dict(type='DistillationLoss')`")
            return
        if dual and (loss.mode == 'none' or loss.distill_on == 'cls'):
            print_log(
                f'{loss} leaves the distillation head untrained: evaluate '
                "with head.prediction='cls'",
                logger='current',
                level=logging.WARNING)
        if loss.mode == 'none':
            return
        if loss.distill_on == 'dist' and not dual \
                and isinstance(self.head, ClsHead):
            raise ValueError(
                "DistillationLoss(distill_on='dist') needs a distillation "
                f'head, but the head is {type(self.head).__name__}: use '
                f"{_DISTILLED}, or distill_on='cls'")
        if self.teacher is not None:
            own, other = self.head.num_classes, self.teacher.num_classes
            if None not in (own, other) and own != other:
                raise ValueError(
                    f'The student has {own} classes and the teacher '
                    f'{other}: set `num_classes` of both to that of the data')

    def loss(self, inputs: torch.Tensor,
             data_samples: List[DataSample]) -> Dict[str, torch.Tensor]:
        """The losses of a batch, and how the teacher does on it.

        Args:
            inputs (torch.Tensor): Preprocessed images (B, 3, H, W).
            data_samples (list[DataSample]): Their labels, ``gt_label`` or,
                after mixup or cutmix, ``gt_score``.

        Returns:
            dict[str, torch.Tensor]: The parts of :class:`DistillationLoss`
            and, with a teacher, ``teacher_acc`` and ``teacher_agreement``:
            on how many of the images, in percent, the teacher is right (its
            first class is the heaviest label) and agrees with the student.
        """
        if not isinstance(self.head.loss_module, DistillationLoss):
            return super().loss(inputs, data_samples)
        feats = self.extract_feat(inputs)
        dual = isinstance(self.head, DeiTDualHead)
        logits = self.head.dual_logits(feats) if dual else self.head(feats)
        if 'gt_score' in data_samples[0]:
            target = torch.stack([i.gt_score for i in data_samples])
        else:
            target = torch.cat([i.gt_label for i in data_samples])

        if self.teacher is None or self.head.loss_module.mode == 'none':
            return self.head.loss_module(logits, target)
        recorded = self.training and self.teacher_labels
        answer = (recorded or self.teacher)(inputs)
        losses = self.head.loss_module(logits, target, answer)
        losses.update(_compare(logits, target, first_class(answer)))
        return losses


@torch.no_grad()
def _compare(logits: Logits, target: torch.Tensor,
             choice: torch.Tensor) -> Dict[str, torch.Tensor]:
    student = logits if isinstance(logits, torch.Tensor) else fuse(*logits)
    label = target.argmax(dim=1) if target.ndim == 2 else target
    return dict(
        teacher_acc=100 * (choice == label).float().mean(),
        teacher_agreement=100 * (choice == student.argmax(1)).float().mean())
