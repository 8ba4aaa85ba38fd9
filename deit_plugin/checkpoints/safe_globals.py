"""Stand-ins for what mmengine's logs need, when ``torch.load(weights_only=True)`` reads them.

A pickle names functions and the file chooses their arguments. numpy's own build arrays of any type over
any memory, so they are not admitted. The stand-ins check what they are asked for: plain numbers, whose
bytes are all there.
"""

import argparse
import math
import pickle
from collections.abc import Collection

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from ..messages import shown

_KINDS = 'biuf'  # bool, integers, floats
_LARGEST = 8  # bytes; long doubles differ between machines


class Refused(pickle.UnpicklingError):
    """A file holds more than weights and logs; nothing in it was run."""


def told(value) -> str:
    """A value for a message, before it is known how large it is for who writes it out."""
    parts = value if type(value) in (list, tuple) else [value]
    holders = [p for p in parts if isinstance(p, (Collection, argparse.Namespace))]
    return shown(value) if all(isinstance(p, (str, bytes)) for p in holders) else type(value).__name__


class Dtype:
    """Stands for ``numpy.dtype``.

    Args:
        code (str): Such as ``'f8'``.
        align (bool): Not used.
        copy (bool): Not used.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = False):
        self.dtype = _plain(code)

    def __setstate__(self, state: tuple):
        # (version, byte order, no subarray, no names, no fields, size, alignment, flags)
        if not isinstance(state, tuple) or len(state) != 8 or any(v is not None for v in state[2:5]):
            raise Refused(f'numpy.dtype with {told(state)}')
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


def _plain(code) -> np.dtype:
    """A dtype of plain numbers."""
    if isinstance(code, Dtype):
        return code.dtype
    if isinstance(code, (str, np.dtype)):
        try:
            dtype = np.dtype(code)
        except TypeError:
            raise Refused(f'numpy.dtype({told(code)})') from None
        if dtype.kind in _KINDS and dtype.itemsize <= _LARGEST and dtype.names is None:
            return dtype
    raise Refused(f'numpy.dtype({told(code)})')


class Array(np.ndarray):
    """Stands for ``numpy.ndarray``; it is stored as one."""

    def __new__(cls, *args, **kwargs):
        """Called by a file, numpy would give it the memory of others."""
        raise Refused('call of numpy.ndarray')

    def __setstate__(self, state: tuple):
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused('numpy.ndarray of another version')
        version, shape, dtype, fortran, data = state
        dtype = _plain(dtype)
        if (
            not isinstance(shape, tuple)
            or not all(type(side) is int and side >= 0 for side in shape)
            or not isinstance(data, bytes)
            or math.prod(shape) * dtype.itemsize != len(data)
        ):
            raise Refused(f'numpy.ndarray of shape {told(shape)} that its bytes do not fill')
        super().__setstate__((version, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce__(self):
        return np.array(self, subok=False).__reduce__()


def reconstruct(subtype, shape, code):
    """Stands for numpy's ``_reconstruct``: an empty array, before its state."""
    if shape != (0,):
        raise Refused(f'numpy _reconstruct({told(shape)})')
    return np.ndarray.__new__(Array, (0,), np.int8)


def scalar(dtype, data: bytes = b''):
    """Stands for numpy's ``scalar``."""
    dtype = _plain(dtype)
    if not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise Refused('numpy scalar that its bytes do not fill')
    return np.frombuffer(data, dtype)[0]


def no_bytes(*args) -> bytes:
    """Stands for ``bytes``, by which the data of an empty array are stored."""
    if args:
        raise Refused(f'bytes of {told(args)}')
    return b''


class Log(HistoryBuffer):
    """Stands for ``HistoryBuffer``, whose state can exchange how all of them are averaged; it becomes one."""

    def __new__(cls, *args):
        """Called by a file with arguments, it would make arrays of whatever these are."""
        if args:
            raise Refused('call of a HistoryBuffer')
        return super().__new__(cls)

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise Refused('a HistoryBuffer without a state')
        values, counts, length = (state.get(k) for k in ('_log_history', '_count_history', 'max_length'))
        if not (
            isinstance(values, np.ndarray)
            and isinstance(counts, np.ndarray)
            and values.ndim == 1
            and values.shape == counts.shape
            and type(length) is int
            and length > 0
        ):
            raise Refused('a HistoryBuffer that is no history of numbers')
        self._log_history, self._count_history, self.max_length = values, counts, length
        self._set_default_statistics()
        self.__class__ = HistoryBuffer  # type: ignore[assignment]


def statistic(owner, name: str):
    """Stands for ``getattr``, by which a ``HistoryBuffer`` stores its statistics, and gives nothing else of
    anything."""
    if owner in (Log, HistoryBuffer) and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, name)
    raise Refused(f'getattr({told(owner)}, {told(name)})')


LOG = 'mmengine.logging.history_buffer.HistoryBuffer'


def allow_mmengine_checkpoints():
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints, and the arguments that timm's and
    the reference's scripts store."""
    torch.serialization.add_safe_globals(
        [
            argparse.Namespace,
            (Log, LOG),
            (Array, 'numpy.ndarray'),
            (Dtype, 'numpy.dtype'),
            (statistic, 'builtins.getattr'),
            (no_bytes, 'builtins.bytes'),
            # numpy 1 and 2 store the same functions under different names.
            (reconstruct, 'numpy._core.multiarray._reconstruct'),
            (reconstruct, 'numpy.core.multiarray._reconstruct'),
            (scalar, 'numpy._core.multiarray.scalar'),
            (scalar, 'numpy.core.multiarray.scalar'),
        ]
    )
