"""Several classifiers as one."""

import math

import torch
import torch.nn as nn
from mmpretrain.models import BaseClassifier, ClsHead
from mmpretrain.registry import MODELS

from .recorded import num_classes_of_config
from .teacher import Teacher


@MODELS.register_module()
class EnsembleClassifier(BaseClassifier):
    """Averages the probabilities of several classifiers, as a teacher or in a test.

    The members are frozen. Each has its own normalisation, as a :class:`Teacher` has.

    Args:
        members (list[dict]): Configs of classifiers; each as that of a :class:`Teacher`, with ``checkpoint``
            and, where it is another than that of the images, ``data_preprocessor``.
        data_preprocessor (dict): ``mean``, ``std`` (in levels of 0 to 255) and ``to_rgb`` of the images that
            it gets. As a teacher the student's, or others, to which the images are then brought first.

    Raises:
        ValueError: If there are no members, no normalisation, or members of different numbers of classes, as
            far as their configs tell; the others when they first answer.
    """

    def __init__(self, members: list[dict], data_preprocessor: dict | None = None):
        if not isinstance(members, (list, tuple)) or not members:
            raise ValueError(
                f'An ensemble needs members, a list of configs of classifiers, but has {members!r}'
            )
        if not isinstance(data_preprocessor, dict):
            raise ValueError(
                'An ensemble needs to know how its images are normalised: set `data_preprocessor` to mean, '
                f'std and to_rgb, of a teacher to those of the student, not to {data_preprocessor!r}'
            )
        # Built here: mmengine would look for it among its own.
        given = dict(dict(type='ClsDataPreprocessor'), **data_preprocessor)
        super().__init__(data_preprocessor=MODELS.build(given))
        self._teachers = [Teacher(member, self.data_preprocessor) for member in members]
        self._check_classes([num_classes_of_config(member) for member in members])
        for teacher in self._teachers:
            teacher.build()
        self.members = nn.ModuleList(teacher.model for teacher in self._teachers)
        self.eval()

    def _check_classes(self, numbers: list[int | None]):
        if len({number for number in numbers if number is not None}) > 1:
            named = [
                f'{teacher.cfg.get("model_name", teacher.cfg["type"])} (members.{i}) {number}'
                for i, (teacher, number) in enumerate(zip(self._teachers, numbers))
                if number is not None
            ]
            raise ValueError(
                f'The members of an ensemble need the same classes, and have: {", ".join(named)}. Set '
                '`num_classes`, or leave some out'
            )

    def init_weights(self):
        """The members have theirs."""

    def compile(self, **kwargs):
        """Compile each member."""
        for member in self.members:
            member.compile(**kwargs)

    def train(self, mode: bool = True):
        """The members stay as they are evaluated."""
        return super().train(False)

    def forward(self, inputs: torch.Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """As mmpretrain's classifiers.

        Args:
            inputs (torch.Tensor): Preprocessed images (B, 3, H, W).
            data_samples (list[DataSample], optional): To be filled in ``mode='predict'``.
            mode (str): ``'tensor'`` or ``'predict'``.

        Returns:
            torch.Tensor | list[DataSample]: The logarithms (B, K), float32, of the mean probabilities, whose
            softmax these are; or the predictions.

        Raises:
            ValueError: If the members have different classes, or ``mode`` is another.
        """
        if mode not in ('tensor', 'predict'):
            raise ValueError(f"EnsembleClassifier is not trained: mode={mode!r} is not 'tensor' or 'predict'")
        logits = []
        for teacher, member in zip(self._teachers, self.members):
            teacher.model = member  # of a copy its own: the copy of a Teacher has none
            logits.append(teacher(inputs))
        self._check_classes([part.shape[1] for part in logits])
        log_probs = torch.stack([part.float().log_softmax(dim=1) for part in logits])
        mean = log_probs.logsumexp(dim=0) - math.log(len(logits))
        return mean if mode == 'tensor' else ClsHead().predict((mean,), data_samples)
