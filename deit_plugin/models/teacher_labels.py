"""A teacher with recorded answers."""

import torch
from mmengine.logging import print_log

from ..teacher_cache.store import LabelStore
from .loss import Answer, first_class
from .teacher import Teacher


class TeacherLabels:
    """A :class:`Teacher` that is asked once for each image of a run.

    Hard distillation needs one class for each augmented image. As all that is
    drawn follows from the seed (:class:`SeedHook`), a first run can record
    the classes, and each later one with the same data, augmentation and seed
    can replay them, whatever the student: then no teacher is built.

    :class:`TeacherLabelsHook` opens the record before training starts. Like
    the teacher this is deliberately not an ``nn.Module``.

    Args:
        teacher (Teacher): Who is asked.
        path (str): The folder of the record, which all processes see.
        mode (str): ``'record'`` asks for all, ``'replay'`` for none,
            ``'auto'`` for what is not recorded yet. Defaults to ``'auto'``.
        topk (int): For soft distillation: of how many classes the
            probability is kept, in half precision. All others count as one
            class, so the loss is at most the full one. Defaults to 0: the
            first class alone, for hard distillation.
        check_interval (int): In each so many iterations one answer is
            compared with the teacher's. Defaults to 0: none is.

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
        self.store: LabelStore | None = None
        self.iteration: int | None = None

    def __getstate__(self) -> dict:
        # A copy, such as a moving average, neither records nor replays.
        return {**self.__dict__, 'store': None}

    def __call__(self, images: torch.Tensor) -> Answer:
        """The answer for the images (B, 3, H, W) of this iteration: classes
        (B, ), int64, or, with ``topk``, the first k and their probabilities,
        each (B, k)."""
        if self.store is None:
            raise ValueError(
                'model.teacher_labels are recorded and replayed by a hook: '
                'set `default_hooks.teacher_labels=dict(type='
                "'TeacherLabelsHook')`"
            )
        if self.iteration is None:
            raise ValueError(
                'model.teacher_labels are those of the training iterations: there are none for other images'
            )
        answer = None
        if self.mode != 'record':
            answer = self._read(images)
        if answer is None:
            answer = self._ask(images)
            self._write(answer)
        elif self.check_interval and self.iteration % self.check_interval == 0:
            self._check(answer, images)
        return answer

    def _ask(self, images: torch.Tensor) -> Answer:
        logits = self.teacher(images)
        if not self.topk:
            return logits.argmax(dim=1)
        probs = (logits.float() / self.tau).softmax(dim=1)
        probs, classes = probs.topk(self.topk, dim=1)
        return classes, probs.half().float()  # as it will be read

    def _read(self, images: torch.Tensor) -> Answer | None:
        block = self.store.read(self.iteration)
        if block is None:
            return None
        arrays = block if isinstance(block, tuple) else (block,)
        tensors = tuple(
            torch.from_numpy(array[: len(images)]).to(images.device, non_blocking=True) for array in arrays
        )
        return tensors if self.topk else tensors[0]

    def _write(self, answer: Answer):
        tensors = answer if self.topk else (answer,)
        arrays = [tensor.cpu().numpy() for tensor in tensors]
        missing = self.store.batch_size - len(arrays[0])
        if missing:  # the last batch of an epoch may be short
            arrays = [array[[*range(len(array)), *[0] * missing]] for array in arrays]
        self.store.write(self.iteration, *arrays)

    def _check(self, answer: Answer, images: torch.Tensor):
        same = first_class(answer) == first_class(self._ask(images))
        agreement = 100 * float(same.float().mean())
        text = (
            f'Iteration {self.iteration + 1}: the teacher gives '
            f'{agreement:.1f} % of the labels in {self.store.file}'
        )
        if agreement < 90:  # kernels may decide a near tie otherwise
            raise ValueError(
                f'{text}: the images are not those that were recorded, or it '
                'is another teacher. Record them anew'
            )
        print_log(text, logger='current')
