"""Values in messages."""

import argparse
import reprlib
from collections.abc import Iterable, Mapping


def some(names: Iterable, limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    # Control characters would move the cursor of a terminal.
    names = [text if (text := str(name)[:100]).isprintable() else repr(text) for name in names]
    shown = ', '.join(names[:limit]) or 'none'
    more = len(names) - limit
    return f'{shown} and {more} more' if more > 0 else shown


class _Short(reprlib.Repr):
    """What reprlib does not know is written out whole, and may hold itself many times over."""

    def repr_instance(self, x, level):
        if isinstance(x, (Mapping, argparse.Namespace)):
            return type(x).__name__
        return super().repr_instance(x, level)


def shown(value, limit: int = 80) -> str:
    """A value from a file, which may be as long and as deep as it likes, for a message."""
    short = _Short()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, limit, limit, limit
    return short.repr(value)
