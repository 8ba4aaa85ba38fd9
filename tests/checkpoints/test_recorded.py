"""The config in a checkpoint is read for its literals; nothing runs, and Python's parser sees no more."""

import os
import time
import tokenize
from types import SimpleNamespace

import pytest

from deit_plugin.checkpoints import recorded
from deit_plugin.checkpoints.recorded import classes_of, config_of, recorded_classes, section


def read(text):
    return config_of(dict(cfg=text))


@pytest.mark.parametrize(
    'text, expected',
    [
        ('a = 1', dict(a=1)),
        ('a = -1.5e3', dict(a=-1500.0)),
        ('a = True\nb = None', dict(a=True, b=None)),
        ("a = 'x' 'y'  # of two", dict(a='xy')),
        ("a = r'\\d'\nb = b'x'", dict(a=r'\d', b=b'x')),
        ('a = """x\n= y\n"""', dict(a='x\n= y\n')),
        ('a = dict(b=[1, (2, -3)], c={"d": 4, 5: None})', dict(a=dict(b=[1, [2, -3]], c={'d': 4, 5: None}))),
        ('a = dict({"x y": 1}, b=2)', dict(a={'x y': 1, 'b': 2})),
        ('a = [\n    1,\n    # of two lines\n    2,\n]', dict(a=[1, 2])),
        ('a = 1\na = 2', dict(a=2)),
        ('', {}),
    ],
)
def test_literals_are_read(text, expected):
    assert read(text) == expected


CODE = [
    "__import__('os').system('touch was_run')",
    "os.system('touch was_run')",
    "eval('1')",
    "f'{os.system(1)}'",
    "rF'{x}'",
    'print',
    'x.y',
    'x[0]',
    '[1][0]',
    '().__class__',
    "'a'.join",
    "'a' % 1",
    '1 + 1',
    '1 if x else 2',
    '[x for x in y]',
    '{**x}',
    'dict(**x)',
    '[*x]',
    'lambda: 1',
    '(yield)',
    '(x := 1)',
    'not x',
    '- - 1',
    'dict(1)',
    'dict([1])',
    'dict()()',
    'list(a=1)',
    '{[]: 1}',
    '9' * 5000,
    "'\\x'",
    '1 2',
    '[1, 2',
]


@pytest.mark.parametrize('code', CODE)
def test_what_is_more_is_left_out(code, tmp_path, monkeypatch):
    """The rest is read all the same, if its lines can be told."""
    monkeypatch.chdir(tmp_path)
    found = read(f'before = 1\na = {code}\nafter = 2\n')
    assert 'a' not in found and found['before'] == 1
    assert found.get('after', 2) == 2
    assert 'a' not in read(f'a = dict(b=[{code}])')
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    'line',
    [
        'import os',
        'a += 1',
        'a: int = 1',
        'a.b = 1',
        'a[0] = 1',
        'del a',
        'for a in [1]: pass',
        'def a(): pass',
    ],
)
def test_what_is_no_assignment_of_a_name_is_left_out(line):
    assert read(f'b = 1\n{line}\n') == dict(b=1)


@pytest.mark.parametrize(
    'text',
    [
        'a = ' + '1+' * 20_000 + '1',
        'a = ' + '-' * 20_000 + '1',
        'a = ' + 'not ' * 20_000 + '1',
        'a = ' + '[' * 90 + ']' * 90,
        'a = ' + '(' * 20_000,
        'a = ' + 'dict(a=' * 60 + '1' + ')' * 60,
        'a = ' + '{1:' * 60 + '1' + '}' * 60,
        'a = x' + '.x' * 20_000,
        'a = x' + '()' * 20_000,
        'a = ' + '1 if 1 else ' * 20_000 + '1',
        'a = ' + 'lambda: ' * 20_000 + '1',
        'a = "' + 'x' * 500_000 + '"',
        ''.join(f'{" " * i}if 1:\n' for i in range(200)),
    ],
)
def test_pythons_parser_sees_nothing_deep(text, monkeypatch):
    """It would end the process, or recurse for long."""
    seen = []
    monkeypatch.setattr(recorded, 'ast', SimpleNamespace(parse=seen.append))
    start = time.monotonic()
    assert read(text) == {}
    assert not seen and time.monotonic() - start < 5


@pytest.mark.parametrize('prefix', ['f', 'F', 'rf', 'fR', 'Rf'])
def test_a_string_with_code_is_no_literal(prefix):
    """Before Python 3.12 it is one token."""
    assert not recorded._is_literal(tokenize.STRING, f"{prefix}'{{x}}'", '=')
    assert recorded._is_literal(tokenize.STRING, "r'x'", '=')


@pytest.mark.parametrize('before', ['x', '1', ')', '-', 'dict'])
def test_a_word_after_a_value_is_no_literal(before):
    assert not recorded._is_literal(tokenize.NAME, 'x', before)


@pytest.mark.parametrize('meta', [{}, dict(cfg=None), dict(cfg=b'a = 1'), dict(cfg=['a = 1']), dict(cfg=3)])
def test_a_config_that_is_no_text_is_none(meta):
    assert config_of(meta) == {}


@pytest.mark.parametrize(
    'config, expected',
    [({}, {}), (dict(a=3), {}), (dict(a=dict(b=[1])), {}), (dict(a=dict(b={1: 2})), {1: 2})],
)
def test_a_section_is_a_mapping(config, expected):
    assert section(config, 'a', 'b') == expected


@pytest.mark.parametrize(
    'meta, expected',
    [
        (dict(dataset_meta=dict(classes=('a', 'b'))), ['a', 'b']),
        (dict(CLASSES=['a', 'b']), ['a', 'b']),
        (dict(dataset_meta=dict(classes=[1, None])), ['1', 'None']),
        (dict(dataset_meta=dict(classes='ab')), []),
        (dict(dataset_meta=dict(classes=['a'])), []),
        (dict(dataset_meta={'classes': {'a': 1, 'b': 2}}), []),
        (dict(dataset_meta=3, CLASSES=['a', 'b']), ['a', 'b']),
        ({}, []),
    ],
)
def test_classes_are_as_many_as_the_model_has(meta, expected):
    assert recorded_classes(meta, 2) == expected
    assert classes_of(meta, {'head.layers.head.weight': [[1], [2]]}) == expected
