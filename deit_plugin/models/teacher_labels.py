"""A teacher with recorded answers."""

import torch
from mmengine.logging import print_log

from ..draws import Iteration, current_iteration
from ..teacher_cache.answers import Answers
from .loss import Answer, first_class
from .teacher import Teacher


class TeacherLabels:
    """Records a teacher's answers, or replays them without a teacher.

    :class:`TeacherLabelsHook` reads and writes them, an epoch at a time. Like
    the teacher this is deliberately not an ``nn.Module``.

    Args:
        teacher (Teacher): Who is asked.
        path (str): The folder of the record, which the first process sees.
        mode (str): ``'record'`` asks for all, ``'replay'`` for none,
            ``'auto'`` for the epochs that are not recorded yet. Defaults to
            ``'auto'``.
        topk (int): For soft distillation: of how many classes the
            probability is kept, in half precision. All others count as one
            class, so the loss is at most the full one. Defaults to 0: the
            first class alone, for hard distillation.
        check_interval (int): In each so many steps the answers are compared
            with the teacher's. Defaults to 0: none are.

    Attributes:
        answers (Answers, optional): Those of the epoch, while it runs; the
            hook sets it.
        recorded (set[int]): The epochs that are recorded; the hook sets it.
        num_classes (int): K, of the teacher; the hook sets it.
        agreements (list[float]): Percent of the answers that the teacher
            gave again, of each comparison.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        teacher: Teacher,
        path: str,
        mode: str = 'auto',
        topk: int = 0,
        check_interval: int = 0,
    ):
        if mode not in ('record', 'replay', 'auto'):
            raise ValueError(f"teacher_labels.mode={mode!r} is unknown: choose 'record', 'replay' or 'auto'")
        if topk < 0 or check_interval < 0:
            raise ValueError(f'teacher_labels: topk={topk} or check_interval={check_interval} is below 0')
        self.teacher = teacher
        self.path = path
        self.mode = mode
        self.topk = topk
        self.check_interval = check_interval
        self.tau = 1.0
        self.recorded: set[int] = set()
        self.num_classes: int | None = None
        self.agreements: list[float] = []
        self.compare_next = False
        self.answers: Answers | None = None

    def __getstate__(self) -> dict:
        # A copy, such as a moving average, neither records nor replays.
        return {**self.__dict__, 'answers': None}

    @torch.compiler.disable  # nothing in a replay is worth it, and each iteration is another
    def __call__(self, images: torch.Tensor) -> Answer:
        """The answer for the images (B, 3, H, W) of this iteration: classes
        (B, ), int64, or, with ``topk``, the first k and their probabilities,
        each (B, k).

        Raises:
            ValueError: If these are no images of a training with the hooks that this needs, or the record
                has no answers to them.
        """
        iteration = current_iteration()
        if iteration is None or self.answers is None:
            raise ValueError(
                'model.teacher_labels are those of the training iterations: there are none for other images. '
                "A training needs the hooks `default_hooks.seed=dict(type='SeedHook')` and "
                "`default_hooks.teacher_labels=dict(type='TeacherLabelsHook')`"
            )
        if not self.answers.recorded:
            answer = self._ask(images)
            self.answers.write(iteration, *(answer if self.topk else (answer,)))
            return answer
        tensors = self.answers.read(iteration, len(images), images.device)
        answer = tensors if self.topk else tensors[0]
        if self.compare_next or self.check_interval and iteration.step % self.check_interval == 0:
            self.compare_next = False
            self._check(answer, images, iteration)
        return answer

    def _ask(self, images: torch.Tensor) -> Answer:
        logits = self.teacher(images)
        if self.num_classes not in (None, logits.shape[1]):
            raise ValueError(
                f'The teacher gives {logits.shape[1]} classes, and {self.num_classes} are recorded: set '
                '`model.teacher.num_classes`'
            )
        if not self.topk:
            return logits.argmax(dim=1)
        probs = (logits.float() / self.tau).softmax(dim=1)
        probs, classes = probs.topk(self.topk, dim=1)
        return classes, probs.half().float()  # as it will be read

    def _check(self, answer: Answer, images: torch.Tensor, iteration: Iteration):
        same = first_class(answer) == first_class(self._ask(images))
        agreement = 100 * float(same.float().mean())
        self.agreements.append(agreement)
        text = f'Step {iteration.step}: the teacher gives {agreement:.1f} % of the labels in {self.path}'
        if agreement < 90:  # kernels may decide a near tie otherwise
            raise ValueError(
                f'{text}: the images are not those that were recorded, or it '
                'is another teacher. Record them anew'
            )
        print_log(text, logger='current')
