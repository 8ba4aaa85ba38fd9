"""What a file holds, gone through once: nothing but data, and no more than it says."""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from .pickled import OddTensor
from .safe_globals import Refused, told

# Files are flat; nested ones are as deep or as large as they want whoever prints or copies them.
_DEEPEST = 100
_LARGEST = 1_000_000  # values
_ROOM = 1 << 26  # bytes by which tensors and texts may exceed what is stored of them


def check_content(content, stored: int):
    """Refuse what is left of functions, and what is small in the file and large for who goes through it."""
    sizes: dict[int, int] = {}  # of what was gone through; 0 of what is gone through now
    depths: dict[int, int] = {}
    viewed: dict[int, int] = {}  # bytes of tensors and texts, as often as they are named
    odd, todo = False, [content]
    while todo:
        value = todo[-1]
        known = sizes.get(id(value))
        if known:  # named by several
            todo.pop()
            continue
        inner = _inner(value)
        if known is None:
            sizes[id(value)] = depths[id(value)] = 0
            if any(sizes.get(id(item)) == 0 for item in inner):
                raise ValueError('a part of it holds itself')
            todo.extend({id(item): item for item in inner if id(item) not in sizes}.values())
            continue
        todo.pop()
        odd = odd or isinstance(value, OddTensor)
        viewed[id(value)] = sum(viewed[id(item)] for item in inner)
        if isinstance(value, torch.Tensor):
            viewed[id(value)] = value.numel() * value.element_size()
        elif isinstance(value, (str, bytes, bytearray)):
            viewed[id(value)] = len(value)
        sizes[id(value)] = 1 + sum(sizes[id(item)] for item in inner)
        depths[id(value)] = 1 + max((depths[id(item)] for item in inner), default=0)
        if depths[id(value)] > _DEEPEST:
            raise ValueError(f'it is nested more than {_DEEPEST} deep')
        if sizes[id(value)] > 10 * len(sizes) + _LARGEST:
            raise ValueError('its parts hold each other so that it unfolds to millions')
    if odd:
        raise Refused((isinstance(content, Mapping) and _odd_in(content)) or 'a tensor that is not dense')
    if viewed[id(content)] > 4 * stored + _ROOM:
        raise ValueError(f'its parts are of {viewed[id(content)]} bytes, but it stores {stored}')


_NUMBERS = (bool, int, float, complex, np.ndarray, np.generic)
_LEAVES = (type(None), str, bytes, bytearray, torch.Tensor, torch.dtype, torch.device, *_NUMBERS)


def _inner(value) -> list[Any]:
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set)):
        return list(value)
    if isinstance(value, argparse.Namespace):
        return list(vars(value).values())
    # A log that got no state is a `Log` still.
    if isinstance(value, (OddTensor, *_LEAVES)) or type(value) is HistoryBuffer:
        return []
    raise Refused(f'{told(value)} as a value')


def _odd_in(content: Mapping, path: str = '') -> str:
    """Which tensor is not a dense one, or nothing."""
    for name, value in content.items():
        if isinstance(value, OddTensor):
            return f'{path}{name} is a tensor that is {value.kind}, not a dense one'
        if isinstance(value, Mapping) and (found := _odd_in(value, f'{path}{name}.')):
            return found
    return ''
