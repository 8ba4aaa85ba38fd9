"""What a pickle of ``torch.save`` may name, and what each makes.

The file chooses the arguments, so each of these checks them.
"""

import argparse
import math
from collections import Counter, OrderedDict
from collections.abc import Callable

import torch
from mmengine.logging import HistoryBuffer

from ..messages import shown
from .safe_globals import LOG, Dtype, Log, Refused, no_bytes, reconstruct, scalar, statistic


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
        raise Refused(f'a tensor of shape {shown(size)} beyond its storage of {storage.numel} values')
    if hooks or any(rest):
        raise Refused('a tensor with hooks, or of another kind')
    tensor = torch.empty(0, dtype=storage.dtype, device=storage.memory.device)
    tensor.set_(storage.memory, offset, size, stride)
    return tensor.requires_grad_(requires_grad is True and tensor.is_floating_point())


def _parameter(data, requires_grad, hooks, state=None) -> torch.nn.Parameter:
    if not isinstance(data, torch.Tensor) or hooks or state:
        raise Refused('a parameter that is more than a tensor')
    return torch.nn.Parameter(data, requires_grad is True and data.is_floating_point())


def _encode(text, encoding) -> bytes:
    """``_codecs.encode``, by which bytes are stored."""
    if not isinstance(text, str) or encoding not in ('latin1', 'latin-1'):
        raise Refused(f'_codecs.encode to {shown(encoding)}')
    return text.encode('latin1')


def _bytearray(*args) -> bytes:
    """``bytearray``, which would give a number as many bytes."""
    if len(args) == 1 and isinstance(args[0], bytes):
        return args[0]
    return _encode(*args) if len(args) == 2 else no_bytes(*args)


def _statistic(owner, name) -> Global:
    """``getattr``, by which a log names how it is averaged."""
    statistic(HistoryBuffer if getattr(owner, 'name', None) == LOG else owner, name)
    return Global(f'HistoryBuffer.{name}')


CALLS: dict[str, Callable] = {
    'collections.OrderedDict': OrderedDict,
    'collections.Counter': Counter,
    'builtins.set': set,
    'builtins.complex': complex,
    'builtins.bytes': no_bytes,
    'builtins.bytearray': _bytearray,
    'builtins.getattr': _statistic,
    '_codecs.encode': _encode,
    'numpy.dtype': Dtype,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.serialization._get_layout': str,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
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
