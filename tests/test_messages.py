"""A value from a file does not fill a message, whatever holds it."""

import argparse
from collections import Counter, OrderedDict

import pytest

from deit_plugin.messages import shown

pytestmark = pytest.mark.usefixtures('in_time')


def doubled(kind):
    """A value that would be written out for years."""
    value = kind('a')
    for _ in range(40):
        value = kind((value, value))
    return value


@pytest.mark.parametrize(
    'kind',
    [
        lambda value: [value],
        lambda value: OrderedDict(a=value),
        lambda value: Counter(a=value),
        lambda value: argparse.Namespace(a=value),
    ],
)
def test_what_holds_itself_many_times_is_short(kind):
    assert len(shown(doubled(kind))) < 500
    assert len(shown([doubled(kind)])) < 500
