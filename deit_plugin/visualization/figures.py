"""Drawing with matplotlib, without its global state."""

import io
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from .attention import Attention

DPI = 110
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


SMALL, LARGE, GAP = 144, 256, 6  # pixels of a sheet: sides of its images, and what is between them
CAPTION, LINE = 7, 13  # the size of its captions in points, and of their lines in pixels


def contact_sheet(images: Sequence[np.ndarray], labels: Sequence[Sequence[tuple[str, float]]]) -> Figure:
    """Images beside each other, with their classes below.

    Small images are enlarged by a whole number, so that each pixel is seen.

    Args:
        images (Sequence[np.ndarray]): (H, W, 3) uint8 RGB each; at least one.
        labels (Sequence): Of each pairs of a class's name and its weight, which is left out where it is 1.
    """
    side = max(max(image.shape[:2]) for image in images)
    shown = [_scaled(image, side) for image in images]
    height, width = (max(image.shape[axis] for image in shown) for axis in (0, 1))
    captions = [_caption(label, width) for label in labels]
    step = height + GAP + LINE * max(len(lines) for lines in captions), width + GAP
    columns = _columns(len(shown))
    rows = math.ceil(len(shown) / columns)
    sheet = np.full((rows * step[0] + GAP, columns * step[1] + GAP, 3), 255, np.uint8)
    # A little more than the pixels, which matplotlib rounds down.
    figure = Figure(figsize=[(pixels + 0.01) / DPI for pixels in sheet.shape[1::-1]])
    axes = figure.add_axes((0, 0, 1, 1))
    for i, (image, lines) in enumerate(zip(shown, captions)):
        top, left = (GAP + place * size for place, size in zip(divmod(i, columns), step))
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        for line, text in enumerate(lines, 1):
            axes.text(left, top + height + line * LINE - 3, text, fontsize=CAPTION, parse_math=False)
    axes.imshow(sheet, interpolation='nearest')
    axes.axis('off')
    return figure


def _scaled(image: np.ndarray, side: int) -> np.ndarray:
    if side > LARGE:
        size = [max(1, round(pixels * LARGE / side)) for pixels in image.shape[1::-1]]
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    factor = math.ceil(SMALL / side)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _columns(number: int) -> int:
    """As many as leave the fewest places empty, in a sheet at most four times as wide as it is high."""
    least = math.ceil(math.sqrt(number))
    return min(range(least, 2 * least + 1), key=lambda columns: (-number % columns, columns))


def _caption(label: Sequence[tuple[str, float]], width: int) -> list[str]:
    """One line if that is narrow enough, else one for each class. Of synonyms, as ImageNet has them between
    commas, the first one stays where not all have room."""
    ends = [f' {weight:.2f}' if round(weight, 4) != 1 else '' for _, weight in label]
    names = [name if name.isprintable() else repr(name) for name, _ in label]
    firsts = [name.split(',')[0] for name in names]
    for shown in (names, firsts):
        line = ', '.join(name + end for name, end in zip(shown, ends))
        if _width(line) <= width:
            return [line]
    return [_shortened(name, end, width) for name, end in zip(firsts, ends)]


def _shortened(name: str, end: str, width: int) -> str:
    if _width(name + end) <= width:
        return name + end
    while name and _width(f'{name}…{end}') > width:
        name = name[:-1]
    return f'{name}…{end}'


def _width(text: str) -> float:
    """In pixels, with some more for the rounding of each letter."""
    font = FontProperties(size=CAPTION)
    return 1.05 * text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] * DPI / 72


def png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=DPI)
    return buffer.getvalue()
