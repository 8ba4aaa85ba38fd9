"""What mixing needs from the CPU, without a wait for the device."""

import torch
from torch.overrides import TorchFunctionMode

from .sending import send


class SentIndices(TorchFunctionMode):
    """Inside of ``with SentIndices():``, a tensor of the CPU that indexes one of a device is sent there
    without waiting.

    mmpretrain's ``Mixup``, ``CutMix`` and ``ResizeMix`` draw on the CPU who meets whom, and index the batch
    with it. PyTorch copies such an index to the device itself, which waits for all that the device has to do.
    They stay as they are, with what they draw, and so do a user's own.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.__getitem__ and args[0].device.type != 'cpu':
            args = args[0], _sent(args[1], args[0].device)
        return func(*args, **(kwargs or {}))


def _sent(index, device):
    if isinstance(index, tuple):
        return tuple(_sent(part, device) for part in index)
    # A mask stays: from the device, its places would have to be read.
    places = isinstance(index, torch.Tensor) and index.ndim and index.dtype not in (torch.bool, torch.uint8)
    return send(index, device) if places and index.device.type == 'cpu' else index
