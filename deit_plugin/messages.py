"""Values in messages."""

import reprlib
from collections.abc import Iterable


def some(names: Iterable, limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    # Control characters would move the cursor of a terminal.
    names = [text if (text := str(name)[:100]).isprintable() else repr(text) for name in names]
    shown = ', '.join(names[:limit]) or 'none'
    more = len(names) - limit
    return f'{shown} and {more} more' if more > 0 else shown


def shown(value, limit: int = 80) -> str:
    """A value from a file, which may be as long and as deep as it likes, for a message."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, limit, limit, limit
    return short.repr(value)
