"""Stand-ins for what mmengine's logs need, when ``torch.load(weights_only=True)`` reads them.

A pickle names functions and the file chooses their arguments. numpy's own build arrays of any type over
any memory, so they are not admitted. The stand-ins check what they are asked for: plain numbers, whose
bytes are all there.
"""

import argparse
import math
import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from ..messages import shown

_KINDS = 'biuf'  # bool, integers, floats
_LARGEST = 8  # bytes; long doubles differ between machines
STATISTICS = ('min', 'max', 'current', 'mean')  # of a HistoryBuffer


def refusal(what: str) -> pickle.UnpicklingError:
    """The error about what is no weight and no log."""
    return pickle.UnpicklingError(f'Unsupported global: {what}')


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
            raise refusal(f'numpy.dtype with {shown(state)}')
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
            raise refusal(f'numpy.dtype({shown(code)})') from None
        if dtype.kind in _KINDS and dtype.itemsize <= _LARGEST and dtype.names is None:
            return dtype
    raise refusal(f'numpy.dtype({shown(code)})')


class _Array(np.ndarray):
    """Stands for ``numpy.ndarray``; it is stored as one."""

    def __new__(cls, *args, **kwargs):
        """Called by a file, numpy would give it the memory of others."""
        raise refusal('call of numpy.ndarray')

    def __setstate__(self, state: tuple):
        if not isinstance(state, tuple) or len(state) != 5:
            raise refusal('numpy.ndarray of another version')
        version, shape, dtype, fortran, data = state
        dtype = _plain(dtype)
        if (
            not isinstance(shape, tuple)
            or not all(type(side) is int and side >= 0 for side in shape)
            or not isinstance(data, bytes)
            or math.prod(shape) * dtype.itemsize != len(data)
        ):
            raise refusal(f'numpy.ndarray of shape {shown(shape)} that its bytes do not fill')
        super().__setstate__((version, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce__(self):
        return np.array(self, subok=False).__reduce__()


def reconstruct(subtype, shape, code):
    """Stands for numpy's ``reconstruct``: an empty array, before its state."""
    if tuple(shape) != (0,):
        raise refusal(f'numpy _reconstruct({shown(shape)})')
    return np.ndarray.__new__(_Array, (0,), np.int8)


def scalar(dtype, data: bytes = b''):
    """Stands for numpy's ``scalar``."""
    dtype = _plain(dtype)
    if not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise refusal('numpy scalar that its bytes do not fill')
    return np.frombuffer(data, dtype)[0]


def no_bytes(*args) -> bytes:
    """Stands for ``bytes``, by which the data of an empty array are stored."""
    if args:
        raise refusal(f'bytes{shown(args)}')
    return b''


def _history_statistic(owner: type, name: str):
    """Stands for ``getattr``, by which a ``HistoryBuffer`` stores its statistics, and gives nothing else
    of anything."""
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(owner, name)
    raise refusal(f'getattr({shown(owner)}, {shown(name)})')


def allow_mmengine_checkpoints():
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints, and the arguments that timm's and
    the reference's scripts store."""
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            argparse.Namespace,
            _Array,
            Dtype,
            (_Array, 'numpy.ndarray'),
            (Dtype, 'numpy.dtype'),
            (_history_statistic, 'builtins.getattr'),
            (no_bytes, 'builtins.bytes'),
            # numpy 1 and 2 store the same functions under different names.
            (reconstruct, 'numpy._core.multiarray._reconstruct'),
            (reconstruct, 'numpy.core.multiarray._reconstruct'),
            (scalar, 'numpy._core.multiarray.scalar'),
            (scalar, 'numpy.core.multiarray.scalar'),
        ]
    )
