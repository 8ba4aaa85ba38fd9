"""A pickle of ``torch.save``, read as data.

``torch.load(weights_only=True)`` runs no code, but it does what a file asks for: memory that nothing fills,
methods of a dict or a class exchanged, views beyond a storage. This reader knows fewer things, and makes
each itself (``pickled``): tensors within their storages, numbers, text, dicts and lists, numpy's arrays of
numbers and mmengine's logs. Nothing else is in what it returns (``unfolding``).
"""

import argparse
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import ClassVar

import torch

from .pickled import CALLS, NEW, WORDS, Global, Storage, are_sizes, check_keys
from .safe_globals import Array, Dtype, Log, Refused, told
from .unfolding import check_content


class ForeignGlobal(Exception):
    """A type that a user admitted for himself, by ``torch.serialization.add_safe_globals``."""


# What torch.save writes, and torch reads as data.
_OPCODES = (
    'PROTO STOP GLOBAL NEWOBJ REDUCE BUILD APPEND APPENDS SETITEM SETITEMS MARK TUPLE TUPLE1 TUPLE2 TUPLE3 '
    'NONE NEWFALSE NEWTRUE EMPTY_TUPLE EMPTY_LIST EMPTY_DICT EMPTY_SET BININT BININT1 BININT2 BINFLOAT '
    'BINUNICODE SHORT_BINSTRING BINPERSID BINGET LONG_BINGET BINPUT LONG_BINPUT LONG1'
)


# Python's: where the one in C stores what is named by a number, a file makes it allocate as many.
class DataUnpickler(pickle._Unpickler):
    """Reads a pickle of ``torch.save``.

    Args:
        file: Opened to read bytes.
        memory (Callable): The storage of a key, of a type and a number of values, saved on a device.

    Raises:
        pickle.UnpicklingError: From ``load``, if the pickle asks for more than weights and logs.
        ForeignGlobal: If it asks for what a user admitted for himself.
        ValueError: If it is nested so that it would fill the memory of whoever goes through it.
    """

    stack: list  # of the parent
    dispatch: ClassVar[dict[int, Callable]] = {
        getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]]
        for name in _OPCODES.split()
    }

    def __init__(self, file, memory: Callable[[str, torch.dtype, int, str], torch.UntypedStorage]):
        super().__init__(file, encoding='utf-8')
        self.file = file
        self.memory = memory
        self.storages: dict[str, Storage] = {}

    def load(self):
        """What the pickle holds."""
        start = self.file.tell()
        try:
            content = super().load()
        except KeyError as error:  # an opcode
            raise Refused(f'what torch.save does not write ({error})') from error
        stored = sum(storage.memory.nbytes() for storage in self.storages.values())
        check_content(content, stored + self.file.tell() - start)
        return content

    def find_class(self, module: str, name: str) -> Global | torch.dtype:
        """What a global stands for."""
        # As torch: protocol 2 has the names of Python 2.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        name = f'{module}.{name}'
        if name in CALLS or name in NEW or name in WORDS:
            return Global(name, CALLS.get(name), NEW.get(name))
        if name.startswith('torch.') and (dtype := _dtype(name.rpartition('.')[2])) is not None:
            return dtype
        if name in _admitted_by_others():
            raise ForeignGlobal(name)
        raise Refused(told(name))

    def persistent_load(self, pid) -> Storage:
        """A storage, whose values stand elsewhere in the file."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] not in ('storage', b'storage'):
            raise Refused('an odd reference to a storage')
        dtype, key, place, numel = pid[1:5]
        if (
            not isinstance(dtype, torch.dtype)
            or not isinstance(key, str)
            or not isinstance(place, str)
            or not are_sizes((numel,))
            or pid[5:] not in ((), (None,))  # a view, of before torch 0.4
        ):
            raise Refused('an odd reference to a storage')
        known = self.storages.get(key)
        if known is None:
            known = Storage(dtype, numel, self.memory(key, dtype, numel, place))
            self.storages[key] = known
        if (known.dtype, known.numel) != (dtype, numel):
            raise Refused(f'a storage of two sizes, {known.numel} and {numel}')
        return known

    def _load_newobj(self):
        args, made = self.stack.pop(), self.stack.pop()
        if not isinstance(made, Global) or made.new is None or args != ():
            raise Refused(f'an object of {told(made)}')
        self.append(made.new())

    def _load_reduce(self):
        args, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Global) or called.call is None or not isinstance(args, tuple):
            raise Refused(f'a call of {told(called)}')
        self.append(called.call(*args))

    def _load_build(self):
        state, made = self.stack.pop(), self.stack[-1]
        if type(made) is OrderedDict:
            made._metadata = _versions(state)
        elif isinstance(made, (Array, Dtype, Log)):
            made.__setstate__(state)
        elif isinstance(made, argparse.Namespace) and _is_named(state):
            vars(made).update(state)
        else:
            raise Refused(f'the state of {told(made)}')

    def _load_setitems(self):
        items = self.pop_mark()
        self._set(items[::2], items[1::2])

    def _load_setitem(self):
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key], [value])

    def _set(self, keys: list, values: list):
        made = self.stack[-1]
        if type(made) not in (dict, OrderedDict, Counter):
            raise Refused(f'entries of {told(made)}')
        check_keys(keys)
        for key, value in zip(keys, values):  # as `update` of a Counter counts pairs
            made[key] = value

    def _load_appends(self):
        self._extend(self.pop_mark())

    def _load_append(self):
        self._extend([self.stack.pop()])

    def _extend(self, items: list):
        if type(self.stack[-1]) is not list:
            raise Refused(f'items of {told(self.stack[-1])}')
        self.stack[-1].extend(items)

    def _load_long1(self):
        size = self.read(1)[0]
        number = pickle.decode_long(self.read(size))
        # Of 64 bits: larger ones can share their place in a dict, and are no float.
        if size > 9 and number != torch.serialization.MAGIC_NUMBER:
            raise Refused(f'a number of {size} bytes')
        self.append(number)

    dispatch.update(
        {
            pickle.NEWOBJ[0]: _load_newobj,
            pickle.REDUCE[0]: _load_reduce,
            pickle.BUILD[0]: _load_build,
            pickle.SETITEM[0]: _load_setitem,
            pickle.SETITEMS[0]: _load_setitems,
            pickle.APPEND[0]: _load_append,
            pickle.APPENDS[0]: _load_appends,
            pickle.LONG1[0]: _load_long1,
        }
    )


def _dtype(name: str) -> torch.dtype | None:
    """Of a storage, such as ``FloatStorage``, or by its own name."""
    if name == 'UntypedStorage':
        return torch.uint8
    if name.endswith('Storage'):
        try:
            return torch.serialization.StorageType(name).dtype
        except KeyError:
            return None
    found = getattr(torch, name, None)
    return found if isinstance(found, torch.dtype) else None


def _is_named(value) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _versions(state) -> OrderedDict:
    """The versions of modules, that a state dict carries as its one attribute."""
    versions = state.get('_metadata') if isinstance(state, dict) and len(state) == 1 else None
    if not isinstance(versions, dict) or not all(map(_is_named, (versions, *versions.values()))):
        raise Refused('attributes of a dict')
    return OrderedDict(
        (name, {'version': of_module['version']} if type(of_module.get('version')) is int else {})
        for name, of_module in versions.items()
    )


def _admitted_by_others() -> set[str]:
    """The names that ``torch.serialization.add_safe_globals`` was given."""
    items = torch.serialization.get_safe_globals()
    return {i[1] if isinstance(i, tuple) else f'{i.__module__}.{i.__qualname__}' for i in items}
