"""What is drawn, by its place in the training."""

import hashlib
import random
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import numpy as np
import torch


def seed_cpu(*place) -> int:
    """Seed Python's, numpy's and torch's global generators on the CPU.

    Args:
        *place: Words and integers; another place gives other seeds.

    Returns:
        int: A seed of 64 bits for torch's generators elsewhere, the one that
        torch has on the CPU.
    """
    digest = hashlib.blake2b(','.join(map(str, place)).encode(), digest_size=20).digest()
    # Each its own: all three are Mersenne Twisters, and from one seed two of
    # them would draw the same numbers.
    of_python, of_torch, of_numpy = struct.unpack('<QQI', digest)
    random.seed(of_python)
    np.random.seed(of_numpy)
    torch.default_generator.manual_seed(of_torch)
    return of_torch


@contextmanager
def draws_put_back() -> Iterator[None]:
    """Python's, numpy's and torch's generators on the CPU are afterwards as they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    state = torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(state)


class Iteration(NamedTuple):
    """Where in the training the batch of an iteration belongs.

    Args:
        seed (int): The same in all processes.
        step (int): Of the optimizer, counted from 0 over the whole training.
        processes (range): The virtual processes that have images in the batch, in their order.
        batch_size (int): Images of each.
    """

    seed: int
    step: int
    processes: range
    batch_size: int


_current: ContextVar[tuple[Iteration, Counter[str]] | None] = ContextVar('iteration', default=None)


def current_iteration() -> Iteration | None:
    """That of the training that runs, as :class:`SeedHook` sets it; None outside of one."""
    current = _current.get()
    return current and current[0]


def set_iteration(iteration: Iteration | None):
    """Make it the current one, and seed what its whole batch draws, on each device and without a wait."""
    _current.set(iteration and (iteration, Counter()))
    if iteration is not None:
        # torch's own function, since it knows the devices.
        torch.manual_seed(seed_cpu('iteration', iteration.seed, iteration.step, iteration.processes[0]))


def parts(number: int, purpose: str) -> Iterator[slice]:
    """The parts of a batch that belong to one virtual process each, which draw apart.

    While a part is at hand, all generators are those of its place: (purpose, seed, step, virtual process,
    which of the iteration's draws for that purpose). Those on the CPU are afterwards as they were before.
    Outside of a training the batch is one part, and draws on; so is one of more images than the iteration
    has.

    Args:
        number (int): Images in the batch.
        purpose (str): What is drawn.
    """
    iteration, drawn = _current.get() or (None, Counter[str]())
    if iteration is None or number > len(iteration.processes) * iteration.batch_size:
        yield slice(0, number)
        return
    time, drawn[purpose] = drawn[purpose], drawn[purpose] + 1
    with draws_put_back():
        for i, process in enumerate(iteration.processes):
            part = slice(i * iteration.batch_size, min((i + 1) * iteration.batch_size, number))
            if part.start >= number:
                return
            torch.manual_seed(seed_cpu(purpose, iteration.seed, iteration.step, process, time))
            yield part
