"""What all classifiers with a teacher have in common."""

import torch
import torch.nn as nn

from .image_size import another_size
from .loss import DistillationLoss
from .teacher import Teacher
from .teacher_labels import TeacherLabels


class TaughtClassifier(nn.Module):
    """A classifier with a teacher: the part that does not depend on what the student is.

    Attributes:
        teacher (Teacher, optional): Not a part of the model.
        teacher_labels (TeacherLabels, optional): Who asks it in a training, if the answers are recorded.
    """

    image_size: tuple[str, tuple[int, int]] | None = None  # of the student; see :func:`image_size_of_config`
    teacher: Teacher | None = None
    teacher_labels: TeacherLabels | None = None

    @property
    def criterion(self) -> nn.Module | None:
        """The loss module of the student, of whatever kind."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int | None:
        """The classes K of the student, as far as it tells."""
        raise NotImplementedError

    @property
    def distillation(self) -> DistillationLoss | None:
        """The loss, if it is one that may take a teacher."""
        return self.criterion if isinstance(self.criterion, DistillationLoss) else None

    def set_teacher(self, teacher: dict | None, teacher_labels: dict | None, option: str):
        """Take a teacher; once, when the model has been built.

        Args:
            teacher (dict, optional): See :class:`Teacher`.
            teacher_labels (dict, optional): See :class:`TeacherLabels`.
            option (str): What the loss is called in a config, for messages.

        Raises:
            ValueError: If they do not fit each other, or the loss.
        """
        self.teacher = None if teacher is None else Teacher(teacher, self.data_preprocessor)
        self.teacher_labels = None
        if teacher_labels is not None:
            if teacher is None:
                raise ValueError('teacher_labels are the answers of a teacher: set `model.teacher`')
            self.teacher_labels = TeacherLabels(self.teacher, **teacher_labels)
        if self.distillation is None and self.teacher is not None:
            raise ValueError(
                f'{type(self).__name__} has a teacher, but {option} is {type(self.criterion).__name__}, '
                f"which asks none: set `{option}=dict(type='DistillationLoss')`"
            )

    @property
    def _asks(self) -> bool:
        """Whether the teacher takes part; a ``SwitchRecipeHook`` may have set another loss."""
        return self.teacher is not None and self.distillation is not None and self.distillation.mode != 'none'

    def check_teacher(self):
        """Compare the classes of student and teacher, as far as the config of the teacher tells.

        A training asks before its first step; evaluation has no teacher to ask.

        Raises:
            ValueError: If they differ.
        """
        if not self._asks:
            return
        own, other = self.num_classes, self.teacher.num_classes
        if None not in (own, other) and own != other:
            raise ValueError(
                f'The student has {own} classes and the teacher {other}: set `num_classes` of both to that '
                'of the data'
            )

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """As mmpretrain's classifiers.

        Raises:
            ValueError: If the student does not take images of this size.
        """
        try:
            return self._forward(inputs, data_samples, mode)
        except (AssertionError, RuntimeError) as error:
            kind = type(getattr(self, 'backbone', None) or self.model).__name__
            text = another_size(self.image_size, inputs, f'the {kind}')
            if not text or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(text) from error

    def _forward(self, inputs: torch.Tensor, data_samples: list | None, mode: str):
        return super().forward(inputs, data_samples, mode)

    def answer(self, images: torch.Tensor) -> dict:
        """``dict(teacher=...)`` for :class:`DistillationLoss`; {} where no teacher takes part.

        Args:
            images (torch.Tensor): Preprocessed (B, 3, H, W).

        Raises:
            ValueError: If the teacher has other classes, or has no answer to these images.
        """
        self.check_teacher()
        if not self._asks:
            return {}
        # Recorded are the answers of the training alone.
        ask = (self.training and self.teacher_labels) or self.teacher
        return dict(teacher=ask(images))
