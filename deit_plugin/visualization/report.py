"""An evaluation as one HTML page: what was confused, and the most confident mistakes."""

import base64
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from PIL import Image

LARGEST_TABLE = 30  # classes; of more the pairs alone
PAIRS, MISTAKES = 20, 24
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; }
th, td { padding: .25em .6em; text-align: right; border: 1px solid #ddd; }
th { font-weight: 600; text-align: left; background: #f6f6f6; }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(160px, 1fr)); gap: 1em; }
figure { margin: 0; } figure img { width: 100%; height: 150px; object-fit: contain; background: #f2f2f2; }
figcaption { font-size: 13px; overflow-wrap: anywhere; } .path { color: #777; font-size: 11px; }
.wide { overflow-x: auto; }
"""


class Answer(NamedTuple):
    """What a model said about an image.

    path (str): Of the image.
    label (int): The true class.
    choice (int): The predicted one.
    confidence (float): Its probability, 0 to 1.
    """

    path: str
    label: int
    choice: int
    confidence: float


class Section(NamedTuple):
    """A model in the report.

    name (str): What it is called.
    summary (str): A line about it.
    classes (Sequence[str]): The names of the classes.
    answers (Sequence[Answer]): To all images.
    """

    name: str
    summary: str
    classes: Sequence[str]
    answers: Sequence[Answer]


def report(sections: Sequence[Section], title: str = 'Evaluation') -> str:
    """The page; it needs no other file."""
    body = ''.join(part for section in sections for part in _section(section))
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n'
    )


def _section(section: Section) -> Iterator[str]:
    names, answers = section.classes, section.answers
    wrong = [answer for answer in answers if answer.choice != answer.label]
    yield f'<h2>{escape(section.name)}</h2><p>{escape(section.summary)}</p>'
    yield f'<p>{len(wrong)} of {len(answers)} images are classified wrongly.</p>'
    present = sorted({a.label for a in answers} | {a.choice for a in answers})
    counts = Counter((answer.label, answer.choice) for answer in answers)
    if len(present) <= LARGEST_TABLE:
        yield from _matrix(counts, present, names)
    if wrong:
        yield from _pairs(counts, names)
        yield '<h3>The most confident mistakes</h3><div class="mistakes">'
        yield from _mistakes(wrong, names)
        yield '</div>'


def _matrix(counts: Counter, present: Sequence[int], names: Sequence[str]) -> Iterator[str]:
    yield '<h3>Confusion matrix</h3><p>Rows: the true class. Columns: the prediction.</p>'
    yield '<div class="wide"><table>'
    yield '<tr><th></th>' + ''.join(f'<th>{escape(names[i])}</th>' for i in present) + '</tr>'
    for label in present:
        total = sum(counts[label, choice] for choice in present) or 1
        cells = ''
        for choice in present:
            share = 0.6 * counts[label, choice] / total  # so that the number stays legible
            colour = '46,125,50' if label == choice else '198,40,40'
            cells += f'<td style="background:rgba({colour},{share:.2f})">{counts[label, choice] or ""}</td>'
        yield f'<tr><th>{escape(names[label])}</th>{cells}</tr>'
    yield '</table></div>'


def _pairs(counts: Counter, names: Sequence[str]) -> Iterator[str]:
    confused = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]][:PAIRS]
    yield '<h3>What is confused most</h3>'
    yield '<table><tr><th>true class</th><th>prediction</th><th>images</th></tr>'
    for (label, choice), count in confused:
        yield f'<tr><th>{escape(names[label])}</th><th>{escape(names[choice])}</th><td>{count}</td></tr>'
    yield '</table>'


def _mistakes(wrong: Sequence[Answer], names: Sequence[str]) -> Iterator[str]:
    for answer in sorted(wrong, key=lambda answer: -answer.confidence)[:MISTAKES]:
        yield (
            f'<figure><img alt="" src="{_thumbnail(answer.path)}"><figcaption>{escape(names[answer.label])}, '
            f'taken for <b>{escape(names[answer.choice])}</b> ({100 * answer.confidence:.0f} %)'
            f'<div class="path">{escape(answer.path)}</div></figcaption></figure>'
        )


def _thumbnail(path: str, side: int = 200) -> str:
    """A small JPEG inside an address."""
    with Image.open(path) as image:
        image = image.convert('RGB')
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=85)
    return 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()
