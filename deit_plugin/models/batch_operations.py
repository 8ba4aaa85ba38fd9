"""Operations on the images of a batch, each image with its own, on the device they are on."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import nn

from ..draws import parts
from .sending import send_all


class Plan(NamedTuple):
    """The operations drawn for a batch. The tensors are of shape (rounds, B) and on
    the CPU, where reading them waits for no device.

    Args:
        ops (torch.Tensor): Indices into the operations' names, int64; -1 for none.
        levels (torch.Tensor): float64.
        signs (torch.Tensor): -1 or 1, float64. Like the level, it is without
            meaning for the operations that have none.
    """

    ops: torch.Tensor
    levels: torch.Tensor
    signs: torch.Tensor


class BatchOperations(nn.Module):
    """Draws operations for each image of a batch and does those of a kind together, to launch little.

    All draws are from torch's global generator on the CPU, so ``torch.manual_seed`` fixes them whatever the
    device. Nothing is read back from the device.

    Subclasses have ``names``, in the order in which a plan counts them; ``kinds``, functions with the names
    that each does, in its own order (see ``rand_augment_ops``); ``max_level``, by which they get a plan's
    levels divided; the ``purpose`` of the draws; and ``draw_part``.

    Args:
        fill (Sequence[int]): The RGB colour of what comes from outside of the image, in [0, 255].
    """

    names: tuple[str, ...]
    kinds: dict[Callable, Sequence[str]]
    purpose: str
    max_level = 1.0

    def __init__(self, fill: Sequence[int] = (0, 0, 0)):
        super().__init__()
        self.fill = tuple(fill)

    def draw_part(self, number: int) -> Plan:
        """Draw a plan for the images of one virtual process."""
        raise NotImplementedError

    def draw(self, batch_size: int) -> Plan:
        """Draw a plan for ``batch_size`` images, of each virtual process apart."""
        plans = [self.draw_part(len(range(batch_size)[part])) for part in parts(batch_size, self.purpose)]
        return Plan(*(torch.cat(of_parts, 1) for of_parts in zip(*plans)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``apply_plan`` with a plan of its own."""
        _check(images)
        return self.apply_plan(images, self.draw(len(images)))

    def apply_plan(self, images: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Apply a plan to images.

        Args:
            images (torch.Tensor): RGB, uint8 of shape (B, 3, H, W).
            plan (Plan): For B images.

        Returns:
            torch.Tensor: As ``images``, in memory of its own.

        Raises:
            ValueError: If the images are of another dtype or shape, or the
                plan is for another number of them.
        """
        _check(images)
        if plan.ops.shape[1] != len(images):
            raise ValueError(f'the plan is for {plan.ops.shape[1]} images, not for {len(images)}')
        size, tensors, steps = tuple(images.shape[2:]), [], []
        for kind, names, rounds, at in self._steps(plan.ops.tolist()):
            drawn = plan.levels[rounds, at] / self.max_level, plan.signs[rounds, at]
            needed, function = kind(names, *drawn, size)
            steps.append((function, len(needed)))
            tensors += [torch.tensor(at), *needed]
        fill = torch.tensor(self.fill, dtype=torch.uint8).view(3, 1, 1)
        fill, *tensors = send_all([fill, *tensors], images.device)
        result, sent = images.clone(memory_format=torch.contiguous_format), iter(tensors)
        for function, count in steps:
            at, *needed = itertools.islice(sent, count + 1)
            done = function(result.index_select(0, at), fill, *needed)
            _wide(result).index_copy_(0, at, _wide(done))
        return result

    def _steps(self, ops: list[list[int]]) -> Iterator[tuple]:
        """Which kind of operations is done, with their names, rounds and images. It goes through the kinds
        forth and back, whatever the round: so the last and dearest kind is done once for nearly all that have
        it."""
        places = {name: (i, k) for i, names in enumerate(self.kinds.values()) for k, name in enumerate(names)}
        waiting = {}  # of an image, its operations: number of the kind, place there, round
        for i, drawn in enumerate(zip(*ops)):
            if todo := [(*places[self.names[op]], r) for r, op in enumerate(drawn) if op >= 0]:
                waiting[i] = todo[::-1]
        kinds = list(self.kinds.items())
        for number in itertools.cycle([*range(len(kinds)), *range(len(kinds) - 2, 0, -1)]):
            if not waiting:
                return
            at = [i for i, todo in waiting.items() if todo[-1][0] == number]
            if at:
                at.sort(key=lambda i: waiting[i][-1][1])
                done = [waiting[i].pop() for i in at]
                waiting = {i: todo for i, todo in waiting.items() if todo}
                kind, names = kinds[number]
                yield kind, [names[place] for _, place, _ in done], [r for *_, r in done], at


def _wide(images):
    """In numbers of 8 bytes, if they fit: those are copied as fast as bytes, one by one."""
    rows = images.flatten(1)
    return rows if rows.shape[1] % 8 else rows.view(torch.int64)


def _check(images):
    if images.dtype != torch.uint8:
        raise ValueError(f'images are of dtype {images.dtype}, not uint8')
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f'images are of shape {tuple(images.shape)}, not (B, 3, H, W)')
