"""The table of docs/ecosystem.md, from reports."""

import json

import pytest
from table import merge, read, update

CASES = {
    'seen': '<property name="tool" value="mmseg | with mmcv-lite"/>',
    'broken': '<property name="tool" value="mmseg"/>',
    'absent': '<property name="tool" value="peft"/>',
    'wrong': '<property name="tool" value="huggingface_hub"/>',
    'also wrong': '<property name="tool" value="huggingface_hub"/>',
}
RESULTS = dict(
    seen='',
    broken='<skipped type="pytest.xfail" message="it needs torch 1.13"/>',
    absent='<skipped type="pytest.skip" message="no module peft"/>',
    wrong='<failure message="Error: 1 | 2&#10;and more">traceback</failure>',
)
RESULTS['also wrong'] = RESULTS['wrong']
EMPTY = 'before\n<!-- table -->\n<!-- /table -->\nafter\n'
ROWS = [
    '| tool | version | beside torch | on | result |',
    '|---|---|---|---|---|',
    r'| huggingface_hub | 2.4.0 | 2.14.1 | 2026-11-27 | fails: wrong: Error: 1 \| 2 and more (and 1 more) |',
    '| mmseg | 1.2.2 | 2.14.1 | 2026-11-27 | works: with mmcv-lite; fails upstream: it needs torch 1.13 |',
    '| peft | - | 2.14.1 | 2026-11-27 | not tried: no module peft |',
]


@pytest.fixture
def report(tmp_path):
    """Writes a report of some cases."""

    def write(name, *cases):
        tests = ''.join(
            f'<testcase name="{case}"><properties>{CASES[case]}</properties>{RESULTS[case]}</testcase>'
            for case in cases
        )
        path = tmp_path / f'{name}.xml'
        path.write_text(
            f'<testsuites><testsuite timestamp="2026-11-27T02:18:00">{tests}<testcase name="other"/>'
            '</testsuite></testsuites>'
        )
        versions = {'mmsegmentation': '1.2.2', 'huggingface_hub': '2.4.0', 'torch': '2.14.1'}
        installed = [dict(name=key, version=value) for key, value in versions.items()]
        path.with_suffix('.json').write_text(json.dumps(installed))
        return path

    return write


def test_each_outcome_has_its_row(report):
    text = update(EMPTY, read(report('all', *CASES)))
    assert text == '\n'.join(['before', '<!-- table -->', *ROWS, '<!-- /table -->', 'after', ''])


def test_rows_of_other_tools_stay(report):
    before = update(EMPTY, read(report('all', *CASES)))
    assert update(before, read(report('one', 'broken', 'absent'))) == before.replace(
        'works: with mmcv-lite; fails', 'fails'
    )
    assert update(before, {}) == before


def test_the_group_that_has_a_tool_decides(report):
    works, lacks = report('works', 'seen'), report('lacks', 'absent')
    assert merge([lacks, works]).keys() == {'mmseg', 'peft'}
    lacks.write_text(lacks.read_text().replace('peft', 'mmseg'))
    for order in ([lacks, works], [works, lacks]):
        assert set(merge(order)['mmseg']['said']) == {'works'}


def test_a_document_without_a_place_for_it_is_refused():
    with pytest.raises(ValueError, match='no place for the table'):
        update('nothing', {})
