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

_KINDS = 'biuf'  # bool, integers, floats
_LARGEST = 8  # bytes; long doubles differ between machines


def _refuse(what: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f'Unsupported global: {what}')


class _Dtype:
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
            raise _refuse(f'numpy.dtype with {state!r}')
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


def _plain(code) -> np.dtype:
    """A dtype of plain numbers."""
    if isinstance(code, _Dtype):
        return code.dtype
    if isinstance(code, (str, np.dtype)):
        try:
            dtype = np.dtype(code)
        except TypeError:
            raise _refuse(f'numpy.dtype({code!r})') from None
        if dtype.kind in _KINDS and dtype.itemsize <= _LARGEST and dtype.names is None:
            return dtype
    raise _refuse(f'numpy.dtype({code!r})')


class _Array(np.ndarray):
    """Stands for ``numpy.ndarray``; it is stored as one."""

    def __new__(cls, *args, **kwargs):
        """Called by a file, numpy would give it the memory of others."""
        raise _refuse('call of numpy.ndarray')

    def __setstate__(self, state: tuple):
        if not isinstance(state, tuple) or len(state) != 5:
            raise _refuse('numpy.ndarray of another version')
        version, shape, dtype, fortran, data = state
        dtype = _plain(dtype)
        if (
            not isinstance(shape, tuple)
            or not all(type(side) is int and side >= 0 for side in shape)
            or not isinstance(data, bytes)
            or math.prod(shape) * dtype.itemsize != len(data)
        ):
            raise _refuse(f'numpy.ndarray of shape {shape!r} that its bytes do not fill')
        super().__setstate__((version, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce__(self):
        return np.array(self, subok=False).__reduce__()


def _reconstruct(subtype, shape, code):
    """Stands for numpy's ``_reconstruct``: an empty array, before its state."""
    if tuple(shape) != (0,):
        raise _refuse(f'numpy _reconstruct({shape!r})')
    return np.ndarray.__new__(_Array, (0,), np.int8)


def _scalar(dtype, data: bytes = b''):
    """Stands for numpy's ``scalar``."""
    dtype = _plain(dtype)
    if not isinstance(data, bytes) or len(data) != dtype.itemsize:
        raise _refuse('numpy scalar that its bytes do not fill')
    return np.frombuffer(data, dtype)[0]


def _no_bytes(*args) -> bytes:
    """Stands for ``bytes``, by which the data of an empty array are stored."""
    if args:
        raise _refuse(f'bytes{args!r}')
    return b''


def _history_statistic(owner: type, name: str):
    """Stands for ``getattr``, by which a ``HistoryBuffer`` stores its statistics, and gives nothing else
    of anything."""
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(owner, name)
    raise _refuse(f'getattr({owner!r}, {name!r})')


def allow_mmengine_checkpoints():
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints, and the arguments that timm's and
    the reference's scripts store."""
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            argparse.Namespace,
            _Array,
            _Dtype,
            (_Array, 'numpy.ndarray'),
            (_Dtype, 'numpy.dtype'),
            (_history_statistic, 'builtins.getattr'),
            (_no_bytes, 'builtins.bytes'),
            # numpy 1 and 2 store the same functions under different names.
            (_reconstruct, 'numpy._core.multiarray._reconstruct'),
            (_reconstruct, 'numpy.core.multiarray._reconstruct'),
            (_scalar, 'numpy._core.multiarray.scalar'),
            (_scalar, 'numpy.core.multiarray.scalar'),
        ]
    )
