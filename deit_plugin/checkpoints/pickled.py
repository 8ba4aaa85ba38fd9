"""What a pickle of ``torch.save`` may name, and what each makes.

The file chooses the arguments, so each of these checks them.
"""

import argparse
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

import torch
from mmengine.logging import HistoryBuffer

from .safe_globals import LOG, Dtype, Log, Refused, no_bytes, reconstruct, scalar, statistic, told


class Global:
    """Something that a pickle names: what its call gives, what it makes, or a word that stands for itself."""

    def __init__(self, name: str, call: Callable | None = None, new: Callable | None = None):
        self.name, self.call, self.new = name, call, new

    def __repr__(self) -> str:
        return self.name


class OddTensor:
    """A tensor that is not a dense one with values: it is named and refused."""

    def __init__(self, kind: str):
        self.kind = kind


class Storage:
    """Values in the file, of which tensors are views."""

    def __init__(self, dtype: torch.dtype, numel: int, memory: torch.UntypedStorage):
        self.dtype, self.numel, self.memory = dtype, numel, memory


def are_sizes(value) -> bool:
    """Whether something is a tuple of numbers that are not negative."""
    return isinstance(value, tuple) and all(type(item) is int and item >= 0 for item in value)


def check_keys(keys: Iterable):
    """Refuse keys by which a file could harm whoever hashes them: a tuple as deep as a million ends the
    process, and of tuples and complex numbers there are millions that share their place in a dict."""
    for key in keys:
        if isinstance(key, (tuple, complex)):
            raise Refused(f'a {type(key).__name__} as a key')


def _ordered(pairs=()) -> OrderedDict:
    """``OrderedDict``, whose entries Python 2 stores as pairs."""
    if not isinstance(pairs, list) and pairs != ():
        raise Refused('an OrderedDict of no pairs')
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise Refused('an OrderedDict of no pairs')
    check_keys(key for key, _ in pairs)
    return OrderedDict(pairs)


def _collected(kind: type) -> Callable:
    """A ``set`` or a ``Counter``, of what a list or a dict holds."""

    def call(items=()):
        if not isinstance(items, (list, dict)) and items != ():
            raise Refused(f'a {kind.__name__} of {told(items)}')
        check_keys(items)
        return kind(items)

    return call


def _layout(name) -> str:
    """``torch.serialization._get_layout``."""
    if not isinstance(name, str):
        raise Refused(f'a layout of {told(name)}')
    return name


def _tensor(storage, offset, size, stride, requires_grad=False, hooks=None, *rest) -> torch.Tensor:
    """A view of a storage; it must be within it."""
    if not (
        isinstance(storage, Storage)
        and are_sizes(size)
        and are_sizes(stride)
        and are_sizes((offset,))
        and len(size) == len(stride)
    ):
        raise Refused('a tensor without a storage, or of odd size')
    last = offset + sum((side - 1) * step for side, step in zip(size, stride))
    if math.prod(size) and last >= storage.numel:
        raise Refused(f'a tensor of shape {told(size)} beyond its storage of {storage.numel} values')
    if hooks or any(rest):
        raise Refused('a tensor with hooks, or of another kind')
    tensor = torch.empty(0, dtype=storage.dtype, device=storage.memory.device)
    tensor.set_(storage.memory, offset, size, stride)
    return tensor.requires_grad_(requires_grad is True and tensor.is_floating_point())


def _tensor_of_bytes(storage, offset, size, stride, requires_grad, hooks, dtype, *rest) -> torch.Tensor:
    """A view of a storage without a type, of the types that got none, such as 8 bits of float."""
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype) or storage.dtype != torch.uint8:
        raise Refused('a tensor without a storage, or of odd type')
    typed = Storage(dtype, storage.numel // dtype.itemsize, storage.memory)
    return _tensor(typed, offset, size, stride, requires_grad, hooks, *rest)


def _parameter(data, requires_grad, hooks, state=None) -> torch.nn.Parameter:
    if not isinstance(data, torch.Tensor) or hooks or state:
        raise Refused('a parameter that is more than a tensor')
    return torch.nn.Parameter(data, requires_grad is True and data.is_floating_point())


def _encode(text, encoding) -> bytes:
    """``_codecs.encode``, by which bytes are stored."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise Refused(f'_codecs.encode to {told(encoding)}')
    return text.encode('latin1')


def _bytearray(*args) -> bytearray:
    """``bytearray``, which would give a number as many bytes."""
    if len(args) == 1 and isinstance(args[0], bytes):
        return bytearray(args[0])
    return bytearray(_encode(*args) if len(args) == 2 else no_bytes(*args))


def _statistic(owner, name) -> Global:
    """``getattr``, by which a log names how it is averaged."""
    statistic(HistoryBuffer if getattr(owner, 'name', None) == LOG else owner, name)
    return Global(f'HistoryBuffer.{name}')


CALLS: dict[str, Callable] = {
    'collections.OrderedDict': _ordered,
    'collections.Counter': _collected(Counter),
    'builtins.set': _collected(set),
    'builtins.complex': complex,
    'builtins.bytes': no_bytes,
    'builtins.bytearray': _bytearray,
    'builtins.getattr': _statistic,
    '_codecs.encode': _encode,
    'numpy.dtype': Dtype,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.serialization._get_layout': _layout,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_of_bytes,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    # numpy 1 and 2.
    **{f'numpy.{core}.multiarray._reconstruct': reconstruct for core in ('core', '_core')},
    **{f'numpy.{core}.multiarray.scalar': scalar for core in ('core', '_core')},
}
CALLS.update(
    {
        f'torch._utils._rebuild_{name}': lambda *args, kind=kind: OddTensor(kind)
        for name, kind in dict(
            sparse_tensor='sparse',
            qtensor='quantized',
            nested_tensor='nested',
            meta_tensor_no_storage='without values',
        ).items()
    }
)
NEW: dict[str, Callable] = {LOG: lambda: Log.__new__(Log), 'argparse.Namespace': argparse.Namespace}
WORDS = ('numpy.ndarray',)
