"""A pickle read with stand-ins, before torch reads it.

``torch.load(weights_only=True)`` runs no code, but the functions that it admits do what a file asks for:
memory that nothing fills, other attributes of a class, views beyond a storage. Here the same pickle first
builds inert stand-ins. What is more than tensors, numbers, text and logs is refused.
"""

import math
import pickle
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

import torch
from mmengine.logging import HistoryBuffer

from ..messages import shown
from .safe_globals import STATISTICS, Dtype, no_bytes, reconstruct, refusal, scalar

# Files are flat; nested ones are as deep or as large as they want whoever prints or copies them.
_DEEPEST = 100
_LARGEST = 1_000_000  # values


class _Fixed:
    """Of which a pickle can change nothing, and which it cannot call."""

    def __setstate__(self, state):
        raise refusal(f'state of a {type(self).__name__.strip("_")}')

    def __call__(self, *args):
        raise refusal(f'call of a {type(self).__name__.strip("_")}')


class _Function(_Fixed):
    """Something to call.

    Args:
        call (Callable): What is called instead, which checks its arguments.
    """

    def __init__(self, call: Callable):
        self.call = call

    def __call__(self, *args):
        return self.call(*args)


class _Word(_Fixed):
    """What stands for itself, such as a dtype or a type of arrays."""


class _StorageType(_Fixed):
    def __init__(self, itemsize: int):
        self.itemsize = itemsize


class _Storage(_Fixed):
    def __init__(self, itemsize: int, numel: int):
        self.size = itemsize, numel


class _Tensor(_Fixed):
    pass


class _Object:
    """Of a type that is admitted: keeps what it is made of."""

    parts: list

    def __new__(cls, *args):  # by which a pickle makes objects, without __init__
        self = object.__new__(cls)
        self.parts = [args]
        return self

    def __setstate__(self, state):
        self.parts.append(state)


def _of(kinds: type | tuple[type, ...], value) -> bool:
    """Whether a tuple holds no other than these; a bool is no int."""
    return type(value) is tuple and all(type(item) is kinds for item in value)


def _tensor(storage, offset, size, stride, *rest) -> _Tensor:
    """Stands for ``torch._utils._rebuild_tensor...``; the view must be within its storage."""
    if not (
        isinstance(storage, _Storage)
        and _of(int, size)
        and _of(int, stride)
        and len(size) == len(stride)
        and type(offset) is int
        and min((offset, *size, *stride)) >= 0
    ):
        raise refusal('a tensor without a storage, or of odd size')
    last = offset + sum((side - 1) * step for side, step in zip(size, stride))
    if math.prod(size) and last >= storage.size[1]:
        raise refusal(f'a tensor of shape {shown(size)} beyond its storage of {storage.size[1]} values')
    for value in rest:  # whether it has a gradient, hooks, flags
        if value and not isinstance(value, (bool, _Word)):
            raise refusal('a tensor with hooks')
    return _Tensor()


def _parameter(data, requires_grad, hooks, state=None) -> _Tensor:
    """Stands for ``torch._utils._rebuild_parameter...``."""
    if not isinstance(data, _Tensor) or hooks or state:
        raise refusal('a parameter that is more than a tensor')
    return data


def _encode(text, encoding) -> bytes:
    """Stands for ``_codecs.encode``, by which bytes are stored."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise refusal(f'_codecs.encode to {shown(encoding)}')
    return text.encode('latin1')


def _bytearray(*args) -> bytes:
    """Stands for ``bytearray``, which would give a number as many bytes."""
    if len(args) == 1 and isinstance(args[0], bytes):
        return args[0]
    return _encode(*args) if len(args) == 2 else no_bytes(*args)


def _statistic(owner, name) -> _Word:
    """Stands for ``getattr``, by which a log names how it is averaged."""
    if getattr(owner, 'stands_for', None) is not HistoryBuffer or name not in STATISTICS:
        raise refusal(f'getattr of {shown(name)}')
    return _Word()


class _Log(_Object):
    """Stands for a ``HistoryBuffer``, which has no arguments in a file."""

    stands_for = HistoryBuffer

    def __new__(cls, *args):
        if args:
            raise refusal('a log that is called')
        return super().__new__(cls)


_CALLS: dict[str, Callable] = {
    'collections.OrderedDict': OrderedDict,
    'collections.Counter': Counter,
    'builtins.set': set,
    'builtins.complex': complex,
    'builtins.bytes': no_bytes,
    'builtins.bytearray': _bytearray,
    'builtins.getattr': _statistic,
    '_codecs.encode': _encode,
    'numpy.dtype': Dtype,
    'torch.Size': tuple,
    'torch.device': _Object,
    'torch.serialization._get_layout': _Object,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    # No weights, as `check_weights` says by their names.
    'torch._utils._rebuild_sparse_tensor': _Object,
    'torch._utils._rebuild_meta_tensor_no_storage': _Object,
    # numpy 1 and 2.
    **{f'numpy.{core}.multiarray._reconstruct': reconstruct for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': scalar for core in ('core', '_core')},
}


# Python's: where the one in C stores what is named by a number, a file makes it allocate as many.
class StandInUnpickler(pickle._Unpickler):
    """Reads a pickle of ``torch.save`` without any of its objects.

    Args:
        file: Opened to read bytes.

    Attributes:
        storages (dict): Of the storages that the pickle names, by their keys: bytes of an element, and how
            many there are.

    Raises:
        pickle.UnpicklingError: From ``load``, if the pickle asks for more than weights and logs.
    """

    def __init__(self, file):
        super().__init__(file, encoding='utf-8')
        self.storages: dict[str, tuple[int, int]] = {}
        self._found: dict[str, object] = {}

    def find_class(self, module: str, name: str):
        """The stand-in for a global."""
        # As torch: protocol 2 has the names of Python 2.
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        name = f'{module}.{name}'
        if name not in self._found:
            self._found[name] = _stand_in(name)
        return self._found[name]

    def persistent_load(self, pid) -> _Storage:
        """A storage, whose values stand elsewhere in the file."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] not in ('storage', b'storage'):
            raise refusal('an odd reference to a storage')
        kind, key, place, numel = pid[1:5]
        if (
            not isinstance(kind, _StorageType)
            or not isinstance(key, str)
            or not isinstance(place, str)
            or type(numel) is not int
            or numel < 0
            or pid[5:] not in ((), (None,))  # a view, of before torch 0.4
        ):
            raise refusal('an odd reference to a storage')
        size = kind.itemsize, numel
        if self.storages.setdefault(key, size) != size:
            raise refusal(f'a storage of two sizes, {size} and {self.storages[key]}')
        return _Storage(*size)

    def load(self):
        """What the pickle holds, tensors and logs by stand-ins.

        Raises:
            ValueError: If it is nested so that it would fill the memory of whoever goes through it.
        """
        content = super().load()
        _check_nesting(content)
        return content


def _stand_in(name: str):
    last = name.rpartition('.')[2]
    if name in _CALLS:
        return _Function(_CALLS[name])
    if name == 'mmengine.logging.history_buffer.HistoryBuffer':
        return type(last, (_Log,), {})  # new for each file
    if name in ('numpy.ndarray', 'torch.Tensor', 'torch._tensor.Tensor'):
        return _Word()  # an argument of others
    if name.startswith('torch.') and last.endswith('Storage'):
        return _StorageType(_itemsize(last))
    if name.startswith('torch.') and isinstance(getattr(torch, name[6:], None), (torch.dtype, torch.qscheme)):
        return _Word()
    if name in _admitted_by_others():
        return type(last, (_Object,), {})
    raise refusal(shown(name))


def _itemsize(storage: str) -> int:
    if storage == 'UntypedStorage':
        return 1
    try:
        return torch.serialization.StorageType(storage).dtype.itemsize
    except KeyError:
        raise refusal(shown(storage)) from None


def _admitted_by_others() -> Iterator[str]:
    """The names that ``torch.serialization.add_safe_globals`` was given."""
    for item in torch.serialization.get_safe_globals():
        yield item[1] if isinstance(item, tuple) else f'{item.__module__}.{item.__qualname__}'


def _check_nesting(content):
    """Refuse what is small in the file and large for who prints, copies or compares it."""
    sizes: dict[int, int] = {}  # of what was gone through
    depths: dict[int, int] = {}
    todo = [content]
    while todo:
        value = todo[-1]
        inner = _inner(value)
        if id(value) not in sizes:
            sizes[id(value)], depths[id(value)] = 1, 0
            todo.extend(item for item in inner if id(item) not in sizes)
            continue
        todo.pop()
        sizes[id(value)] = 1 + sum(sizes[id(item)] for item in inner)
        depths[id(value)] = 1 + max((depths[id(item)] for item in inner), default=0)
        if depths[id(value)] > _DEEPEST:
            raise ValueError(f'it is nested more than {_DEEPEST} deep')
        if sizes[id(value)] > 10 * len(sizes) + _LARGEST:
            raise ValueError('its parts hold each other so that it unfolds to millions')


def _inner(value) -> list:
    if isinstance(value, dict):
        return [*value.keys(), *value.values(), *getattr(value, '__dict__', {}).values()]
    if isinstance(value, (list, tuple, set)):
        return list(value)
    return value.parts if isinstance(value, _Object) else []
