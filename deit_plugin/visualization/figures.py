"""Drawing with matplotlib, without its global state."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from .attention import Attention

TOKENS = ('class token', 'distillation token')


def attention_figure(
    image: np.ndarray, attention: Attention, similarity: torch.Tensor | None = None, columns: int = 5
) -> Figure:
    """Attention over an image: mean and rollout large, the heads of the last layer small.

    Args:
        image (np.ndarray): (H, W, 3) uint8 RGB.
        attention (Attention): Of that image alone (B = 1).
        similarity (torch.Tensor, optional): Of :func:`token_similarity`, for a plot beside.
        columns (int): Small pictures in a row. Defaults to 5.
    """
    _, heads, tokens = attention.heads.shape[:3]
    columns = min(columns, max(heads, 3))
    rows = math.ceil(heads / columns)
    figure = Figure(figsize=(2.2 * columns, 2.4 * tokens * (rows + 1.6)), layout='constrained')
    parts = figure.subfigures(tokens + (similarity is not None), 1, squeeze=False)[:, 0]
    for token, part in enumerate(parts[:tokens]):
        part.suptitle(f'Where the {TOKENS[token]} looks')
        large, small = part.subfigures(2, 1, height_ratios=[1.6, rows])
        for axes, (title, heat) in zip(
            large.subplots(1, 3),
            [
                ('image', None),
                ('mean of the last layer', attention.mean[0, token]),
                ('rollout over all layers', attention.rollout[0, token]),
            ],
        ):
            _overlay(axes, image, heat, title)
        for i, axes in enumerate(small.subplots(rows, columns, squeeze=False).flat):
            if i < heads:
                _overlay(axes, image, attention.heads[0, i, token], f'head {i + 1}')
            axes.axis('off')
    if similarity is not None:
        _similarity(parts[-1].subplots(), similarity)
    return figure


def _overlay(axes, image: np.ndarray, heat: torch.Tensor | None, title: str):
    axes.axis('off')
    axes.set_title(title, fontsize=8)
    if heat is None:
        axes.imshow(image)
        return
    heat = F.interpolate(heat[None, None].float(), image.shape[:2], mode='bicubic')[0, 0].cpu()
    axes.imshow(image.mean(axis=2), cmap='gray')
    axes.imshow(heat.clamp(min=0), cmap='inferno', alpha=0.6)


def _similarity(axes, similarity: torch.Tensor):
    values = similarity.tolist()
    axes.plot(range(len(values)), values, marker='o')
    axes.set(
        title='Cosine similarity of class and distillation token',
        xlabel='after layer (0: the learned tokens)',
        xticks=range(len(values)),
        ylim=(min(0, *values) - 0.05, 1.05),
    )
    axes.grid(alpha=0.3)


CURVES = {
    'losses': ('loss', 'loss_cls', 'loss_distill'),
    'accuracy in validation, %': ('accuracy/top1', 'accuracy/top5'),
    'accuracy in training, of the heaviest label, %': ('cls_acc', 'dist_acc', 'teacher_acc'),
    'agreement of student and teacher, %': ('teacher_agreement',),
    'learning rate': ('lr',),
}


def curves_figure(scalars: Mapping[str, Sequence[tuple[float, float]]]) -> Figure | None:
    """The course of a training.

    Args:
        scalars (Mapping): By their names in the log pairs of epoch and value, in their order.

    Returns:
        Figure | None: None if nothing of it is known.
    """
    panels = {title: [n for n in names if n in scalars] for title, names in CURVES.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return None
    figure = Figure(figsize=(9, 2.2 * len(panels)), layout='constrained')
    for axes, (title, names) in zip(
        figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels.items()
    ):
        for name in names:
            x, y = zip(*scalars[name])
            axes.plot(x, y, label=name, linewidth=1, marker='.' if len(x) < 3 else None)
        axes.set_title(title, fontsize=9, loc='left')
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    axes.set_xlabel('epoch')
    return figure


def png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    return buffer.getvalue()
