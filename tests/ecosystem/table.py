"""Write the table of docs/ecosystem.md from pytest's reports; run.sh calls it.

    python tests/ecosystem/table.py GROUP.xml...

``GROUP.xml`` is what ``pytest --junitxml`` writes, ``GROUP.json`` beside it what ``pip list --format json``
says of the environment; the day is the report's. A test tells which tool it decides, and what the table
says if it works, by

    @pytest.mark.tool('mmseg', 'with mmcv-lite 2.1')

The second may be left out. ``xfail(strict=True)`` with a reason is what fails upstream. Rows of tools that
were not tried this time stay.
"""

import json
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'ecosystem.md'
TABLE = re.compile(r'(?<=<!-- table -->\n).*(?=<!-- /table -->)', re.DOTALL)
HEADER = ['tool', 'version', 'beside torch', 'on', 'result']
# By what name pip knows a tool, if by another.
PACKAGES = {
    'mmseg': 'mmsegmentation',
    'hugging face': 'transformers',
}


def outcome(case: ElementTree.Element) -> tuple[str, str]:
    """``'works'``, ``'fails upstream'``, ``'fails'`` or ``'not tried'``, and why."""
    for child in case:
        why = (child.get('message') or '').strip()
        if child.tag == 'skipped':
            return ('fails upstream' if child.get('type') == 'pytest.xfail' else 'not tried'), why
        if child.tag in ('failure', 'error'):
            text = why or (child.text or '')
            return 'fails', f'{case.get("name")}: {" ".join(text.split())[:120]}'
    return 'works', ''


def read(report: Path) -> dict[str, dict]:
    """What a report says of each tool: its versions and the notes of each outcome."""
    installed = json.loads(report.with_suffix('.json').read_text())
    versions = {package['name'].lower().replace('_', '-'): package['version'] for package in installed}
    tools: dict[str, dict] = {}
    tree = ElementTree.parse(report)
    facts = dict(torch=versions.get('torch', ''), day=tree.find('.//testsuite').get('timestamp', '')[:10])
    for case in tree.iter('testcase'):
        state, why = outcome(case)
        for item in case.iterfind('properties/property[@name="tool"]'):
            name, _, note = item.get('value', '').partition(' | ')
            package = PACKAGES.get(name.lower(), name.lower()).replace('_', '-')
            version = versions.get(package, '-')
            tool = tools.setdefault(name, dict(version=version, **facts, said={}))
            notes = tool['said'].setdefault(state, [])
            if (text := note if state == 'works' else why) and text not in notes:
                notes.append(text)
    return tools


def row(name: str, tool: dict) -> list[str]:
    said = tool['said']
    states = [state for state in ('works', 'fails upstream', 'fails') if state in said] or ['not tried']
    parts = []
    for state in states:
        notes = said[state]
        if state == 'fails' and len(notes) > 1:
            notes = [f'{notes[0]} (and {len(notes) - 1} more)']
        parts.append(f'{state}: {", ".join(notes)}' if notes else state)
    return [name, tool['version'], tool['torch'], tool['day'], '; '.join(parts).replace('|', r'\|')]


def merge(reports: list[Path]) -> dict[str, dict]:
    """A tool that one report has tried and another has not is taken from the first."""
    tools: dict[str, dict] = {}
    for report in reports:
        for name, tool in read(report).items():
            if name not in tools or set(tools[name]['said']) == {'not tried'}:
                tools[name] = tool
    return tools


def update(text: str, tools: dict[str, dict]) -> str:
    """The document with new rows, in alphabetical order."""
    found = TABLE.search(text)
    if found is None:
        raise ValueError(f'{DOCUMENT} has no place for the table, <!-- table --> and <!-- /table -->')
    lines = [line[2:-2].split(' | ') for line in found[0].splitlines() if line.startswith('| ')]
    rows = {line[0]: line for line in lines[1:]}
    for name, tool in tools.items():
        if set(tool['said']) != {'not tried'} or name not in rows:
            rows[name] = row(name, tool)
    body = [rows[name] for name in sorted(rows, key=str.lower)]
    table = [f'| {" | ".join(HEADER)} |', '|---' * len(HEADER) + '|']
    table += [f'| {" | ".join(line)} |' for line in body]
    return text[: found.start()] + '\n'.join(table) + '\n' + text[found.end() :]


if __name__ == '__main__':
    changed = merge([Path(path) for path in sys.argv[1:]])
    DOCUMENT.write_text(update(DOCUMENT.read_text(encoding='utf-8'), changed), encoding='utf-8')
