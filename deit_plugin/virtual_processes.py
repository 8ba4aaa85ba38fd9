"""Virtual processes: those of the recipe, of which each real one carries a share.

What is drawn belongs to a virtual process, not to a real one, so a training is the same on any number of
machines. (EasyScale, SC'23, does the like for elastic clusters.)
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from mmengine.dist import get_dist_info

from .draws import Iteration

_SAMPLER = 'train_dataloader.sampler'


class VirtualProcesses(NamedTuple):
    """The processes of a training, whatever it runs on.

    Args:
        number (int): V, how many there are.
        batch_size (int): Images of each in a step.
    """

    number: int
    batch_size: int

    @property
    def carried(self) -> range:
        """Those of this real process: of W processes each carries V / W."""
        rank, processes = get_dist_info()
        share = self.number // processes
        return range(rank * share, (rank + 1) * share)

    def check_shared(self):
        """Whether the real processes can share them.

        Raises:
            ValueError: If not.
        """
        _, processes = get_dist_info()
        if self.number % processes:
            size, rest = divmod(self.number * self.batch_size, processes)
            settings = f'{_SAMPLER}.processes={processes} {_SAMPLER}.batch_size={size}'
            other = f', or train another run: `{settings} train_dataloader.batch_size={size}`'
            raise ValueError(
                f'{self}, which {processes} cannot share: run {_listed(_divisors(self.number))} '
                f'processes{"" if rest else other}'
            )

    def accumulated(self, batch_size: int) -> int:
        """In how many iterations of a real process with that batch all of its virtual ones have theirs.

        Raises:
            ValueError: If the virtual processes cannot be shared so.
        """
        self.check_shared()
        share = len(self.carried)
        together, rest = divmod(batch_size, self.batch_size)
        if not rest and together and not share % together:
            return share // together
        size = math.gcd(batch_size, self.number * self.batch_size)
        number = self.number * self.batch_size // size
        fits = size < self.batch_size and not number % (self.number // share)
        smaller = f'`{_SAMPLER}.processes={number} {_SAMPLER}.batch_size={size}`'
        raise ValueError(
            f'{self}, of which each of {self.number // share} carries {share}; a batch of {batch_size} does '
            'not fit: set `train_dataloader.batch_size` to '
            f'{_listed(self.batch_size * n for n in _divisors(share))}. If the smallest is too much for a '
            'device, set `model.backbone.with_cp=True`'
            + (f', or train another run, of smaller processes: {smaller}' if fits else '')
        )

    def __str__(self) -> str:
        return f'The recipe has {self.number} processes of {self.batch_size} images'

    def at(self, seed: int, iteration: int, batch_size: int) -> Iteration:
        """The iteration of this process, counted from 0 over the whole training.

        Args:
            seed (int): The same in all processes.
            iteration (int): Of this process.
            batch_size (int): Of this process.
        """
        step, part = divmod(iteration, self.accumulated(batch_size))
        together = batch_size // self.batch_size
        carried = self.carried[part * together : (part + 1) * together]
        return Iteration(seed, step, carried, self.batch_size)


def _divisors(number: int) -> list[int]:
    return [n for n in range(1, number + 1) if not number % n]


def _listed(numbers: Iterable[int]) -> str:
    *first, last = map(str, numbers)
    return f'{", ".join(first)} or {last}' if first else last
