"""The code blocks of docs/ecosystem.md, so that what a reader pastes is what the tests run."""

import re

from conftest import ROOT


def examples(heading: str, language: str = 'python') -> list[str]:
    """The blocks of a language under a heading, in their order.

    Args:
        heading (str): Without the number signs.
        language (str): Of the block: ``'python'`` or ``'bash'``.
    """
    text = (ROOT / 'docs' / 'ecosystem.md').read_text(encoding='utf-8')
    sections = re.split(r'^#+ (.+)$', text, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2]))[heading]
    return re.findall(rf'^```{language}\n(.*?)^```$', found, flags=re.MULTILINE | re.DOTALL)
