"""Small tensors on their way from the CPU to the device of the images."""

from collections.abc import Sequence

import torch

ALIGNMENT = 8  # bytes: of the widest type that is sent


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device, without waiting for what the device has to do before. Only from
    pinned memory is that sure."""
    if device.type == 'cuda':
        tensor = tensor.pin_memory()
    # MPS may read it after it is freed.
    return tensor.to(device, non_blocking=device.type != 'mps')


def send_all(tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """As ``send``, all in one copy; with their types and shapes, in memory that they share."""
    if device.type == 'cpu' or not tensors:
        return list(tensors)
    parts, starts, end = [], [], 0
    for tensor in tensors:
        data = tensor.flatten().view(torch.uint8)
        gap = -len(data) % ALIGNMENT
        parts += [data, data.new_empty(gap)]
        starts.append(end)
        end += len(data) + gap
    sent = send(torch.cat(parts), device)
    return [
        sent[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for start, tensor in zip(starts, tensors)
    ]
