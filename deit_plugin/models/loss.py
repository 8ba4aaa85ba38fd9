"""The distillation loss."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmpretrain.models import LabelSmoothLoss
from mmpretrain.registry import MODELS

Logits = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
# Logits (B, K); classes (B, ), int64; or the k most probable classes (B, k)
# and their probabilities (B, k).
Answer = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


def _choose(name: str, value: str, choices: tuple):
    if value not in choices:
        raise ValueError(f'{name}={value!r} is unknown: choose one of {choices}')


@MODELS.register_module()
class DistillationLoss(nn.Module):
    r"""The loss of a distilled DeiT, as facebookresearch/deit at ``7e160fe``
    computes it (arXiv 2012.12877, section 4).

    .. math::
        (1 - \alpha) L_{base}(z_{cls}, y) + \alpha L_{distill}(z_{dist}, z_t)

    Args:
        base_loss (dict): Any classification loss of mmpretrain, for the class
            logits and the labels. Defaults to the reference's cross-entropy
            with label smoothing 0.1.
        mode (str): ``'hard'``: cross-entropy with the teacher's most probable
            class. ``'soft'``: Kullback-Leibler divergence from the teacher's
            distribution, times ``tau ** 2``. ``'none'``: the base loss alone,
            not weighted.
            Defaults to ``'hard'``.
        alpha (float): Weight of the teacher, in [0, 1]. Defaults to 0.5.
        tau (float): Temperature of the soft mode, above 0. Defaults to 1.0.
        soft_reduction (str): By what the summed divergence is divided:
            ``'mean'`` by the batch size times the number of classes, as the
            reference does; ``'batchmean'`` by the batch size, as timm does.
            On ImageNet the former is 1000 times smaller.
            Defaults to ``'mean'``.
        distill_on (str): What the teacher supervises: ``'dist'``, the
            distillation logits, or ``'cls'``, the class logits, for the
            paper's distillation without a token. Defaults to ``'dist'``.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        base_loss: dict = dict(type=LabelSmoothLoss, label_smooth_val=0.1),
        mode: str = 'hard',
        alpha: float = 0.5,
        tau: float = 1.0,
        soft_reduction: str = 'mean',
        distill_on: str = 'dist',
    ):
        super().__init__()
        _choose('mode', mode, ('none', 'soft', 'hard'))
        _choose('soft_reduction', soft_reduction, ('mean', 'batchmean'))
        _choose('distill_on', distill_on, ('dist', 'cls'))
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha={alpha} is not in [0, 1]')
        if not tau > 0:
            raise ValueError(f'tau={tau} is not above 0')
        self.base_loss = MODELS.build(base_loss)
        self.mode = mode
        self.alpha = alpha
        self.tau = tau
        self.soft_reduction = soft_reduction
        self.distill_on = distill_on

    def forward(
        self,
        logits: Logits,
        target: torch.Tensor,
        teacher: Answer | None = None,
        avg_factor: int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the parts of the loss.

        Args:
            logits (torch.Tensor | tuple[torch.Tensor]): Class logits (B, K) or the pair (class logits,
                distillation logits).
            target (torch.Tensor): Class indices (B, ) or, after mixup or cutmix, class probabilities
                (B, K).
            teacher (torch.Tensor | tuple[torch.Tensor], optional): The teacher's logits (B, K), without
                gradient; or what is recorded of them: its classes (B, ), int64, for the hard mode, or
                the k most probable classes and their probabilities at temperature ``tau``, each (B, k).
                Needed unless ``mode`` is ``'none'``.
            avg_factor (int, optional): B, as mmpretrain's heads pass it. Not used: it is read from the
                logits.

        Returns:
            dict[str, torch.Tensor]: ``loss_cls`` and, unless ``mode`` is ``'none'``, ``loss_distill``,
            weighted, so that their sum is the loss; with it, in percent of the images, ``cls_acc``,
            ``dist_acc`` and ``teacher_acc``: where the class logits, the distillation logits and the
            teacher are right (the label is the heaviest one); and ``teacher_agreement``: where teacher and
            student (the mean of both logits) agree.

        Raises:
            ValueError: If the teacher's logits are missing or of another shape, or if there are no
                distillation logits to supervise.
        """
        cls, dist = logits if isinstance(logits, (tuple, list)) else (logits, None)
        loss_cls = self.base_loss(full_precision(cls), target, avg_factor=len(cls))
        if self.mode == 'none':
            return dict(loss_cls=loss_cls)
        student = cls if self.distill_on == 'cls' else dist
        if student is None:
            raise ValueError(
                f'The student gives class logits {tuple(cls.shape)} alone: there is no distillation head '
                'to supervise. Set `distilled=True` in the backbone, with DistillationTokenNeck and '
                "DeiTDualHead, or `distill_on='cls'` in the loss"
            )
        teacher = self._check_teacher(teacher, student)
        return dict(
            loss_cls=(1 - self.alpha) * loss_cls,
            loss_distill=self.alpha * self._distill(full_precision(student), teacher),
            **_compare(cls, dist, target, first_class(teacher)),
        )

    def _check_teacher(self, teacher: Answer | None, student: torch.Tensor) -> Answer:
        if teacher is None:
            raise ValueError(
                f'DistillationLoss(mode={self.mode!r}) needs a teacher, but there is none: set '
                "`model.type='DistilledClassifier'` and `model.teacher`, or "
                "`model.head.loss.mode='none'` to train without (of a DistilledTimmClassifier "
                "`model.loss.mode='none'`)"
            )
        if not isinstance(teacher, torch.Tensor) or teacher.ndim != 2:
            return teacher
        if teacher.shape != student.shape:
            raise ValueError(
                f'The teacher gives logits {tuple(teacher.shape)} and the student '
                f'{tuple(student.shape)} (batch, classes): both need the same classes'
            )
        return full_precision(teacher)

    def _distill(self, student: torch.Tensor, teacher: Answer) -> torch.Tensor:
        if self.mode == 'hard':
            return F.cross_entropy(student, first_class(teacher))
        log_probs = F.log_softmax(student / self.tau, dim=1)
        if isinstance(teacher, tuple):
            divergence = _divergence_of_top(log_probs, *teacher)
        elif teacher.ndim == 2:
            divergence = F.kl_div(
                log_probs,
                F.log_softmax(teacher / self.tau, dim=1),
                reduction='sum',
                log_target=True,
            )
        else:
            raise ValueError(
                'Soft distillation needs more than the classes '
                'of the teacher: record some probabilities, '
                '`teacher_labels=dict(topk=10, ...)`'
            )
        count = student.numel() if self.soft_reduction == 'mean' else len(student)
        return divergence * self.tau**2 / count

    @property
    def uses_dist_head(self) -> bool:
        """Whether the distillation logits take part in the loss."""
        return self.mode != 'none' and self.distill_on == 'dist'

    def extra_repr(self) -> str:
        return (
            f'mode={self.mode!r}, alpha={self.alpha}, tau={self.tau}, '
            f'soft_reduction={self.soft_reduction!r}, '
            f'distill_on={self.distill_on!r}'
        )


@torch.no_grad()
def _compare(
    cls: torch.Tensor, dist: torch.Tensor | None, target: torch.Tensor, choice: torch.Tensor
) -> dict[str, torch.Tensor]:
    label = target.argmax(dim=1) if target.ndim == 2 else target
    student = cls if dist is None else cls + dist
    pairs = dict(
        cls_acc=(cls.argmax(dim=1), label),
        dist_acc=None if dist is None else (dist.argmax(dim=1), label),
        teacher_acc=(choice, label),
        teacher_agreement=(choice, student.argmax(dim=1)),
    )
    return {name: 100 * (p[0] == p[1]).float().mean() for name, p in pairs.items() if p is not None}


def first_class(teacher: Answer) -> torch.Tensor:
    """The teacher's most probable class (B, ), int64."""
    if isinstance(teacher, tuple):
        return teacher[0][:, 0]
    return teacher.argmax(dim=1) if teacher.ndim == 2 else teacher


def _divergence_of_top(log_probs: torch.Tensor, classes: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """The divergence where all classes but the
    teacher's first k are one: at most the full divergence, and equal to it
    for k = K."""
    divergence = F.kl_div(log_probs.gather(1, classes), probs, reduction='sum')
    if classes.shape[1] == log_probs.shape[1]:
        return divergence
    rest = (1 - probs.sum(dim=1)).clamp(min=0)
    log_rest = log_probs.scatter(1, classes, -torch.inf).logsumexp(dim=1)
    return divergence + F.kl_div(log_rest, rest, reduction='sum')


def full_precision(logits: torch.Tensor) -> torch.Tensor:
    """Half precision as float32: autocast does so on some devices only."""
    half = logits.dtype in (torch.float16, torch.bfloat16)
    return logits.float() if half else logits
