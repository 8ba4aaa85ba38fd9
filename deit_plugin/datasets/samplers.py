"""Repeated augmentation (Hoffer et al. 2020, arXiv 1901.09335)."""

import math
from collections.abc import Iterator, Sized

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmpretrain.datasets import RepeatAugSampler
from mmpretrain.registry import DATA_SAMPLERS

from ..virtual_processes import VirtualProcesses


@DATA_SAMPLERS.register_module()
class RepeatedAugmentSampler(RepeatAugSampler):
    """mmpretrain's ``RepeatAugSampler`` with a switch, for the processes of the recipe.

    With repetition an epoch draws each of a third of the images three times,
    for different processes; its length stays that of the dataset. On ImageNet
    at a batch of 1024 and ``drop_last=True`` that is 1251 iterations and about
    427,000 different images.

    With ``processes`` and ``batch_size`` each real process carries its share
    of that many virtual ones, whose batches come in turns: one of each, then
    the next one of each. Incomplete batches are left out. An epoch is then
    the same on any number of real processes.

    Args:
        dataset (Sized): The dataset.
        repeat (bool | str): True, False or ``'distributed'``: only if there
            are several processes, as in the reference.
            Defaults to ``'distributed'``.
        num_repeats (int): Defaults to 3.
        seed (int, optional): Seed of the order, shared by all processes.
        processes (int, optional): Of the recipe. Defaults to None: the real
            ones.
        batch_size (int, optional): Images of each of these in a step.

    Raises:
        ValueError: If an argument is out of range, or the real processes
            cannot share the virtual ones.
    """

    def __init__(
        self,
        dataset: Sized,
        repeat: bool | str = 'distributed',
        num_repeats: int = 3,
        seed: int | None = None,
        processes: int | None = None,
        batch_size: int | None = None,
    ):
        if repeat not in (True, False, 'distributed'):
            raise ValueError(f"repeat={repeat!r} is unknown: choose True, False or 'distributed'")
        given = [n for n in (processes, batch_size) if n is not None]
        if len(given) == 1 or not all(isinstance(n, int) and n > 0 for n in given):
            raise ValueError(
                f'processes={processes!r} and batch_size={batch_size!r} of the recipe must both be positive, '
                'or both None'
            )
        self.virtual = VirtualProcesses(*given) if given else None
        on = (processes or get_world_size()) > 1 if repeat == 'distributed' else repeat
        super().__init__(dataset, num_repeats=num_repeats if on else 1, seed=seed)
        number, size = self.virtual or (self.world_size, 1)
        self.num_batches = math.ceil(len(dataset) / number) // size  # of each process in an epoch
        self.num_selected_samples = self.num_batches * size
        if self.virtual:
            self.virtual.check_shared()
            self.num_selected_samples *= len(self.virtual.carried)
        state = f'on, x{num_repeats}' if on else 'off'
        print_log(
            f'Repeated augmentation: {state} (repeat={repeat!r}, {number} process(es))', logger='current'
        )

    def __iter__(self) -> Iterator[int]:
        """As the parent's, without the list of all that is repeated."""
        order = torch.arange(len(self.dataset))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(self.dataset), generator=generator)
        number, size = self.virtual or (self.world_size, 1)
        carried = torch.tensor(self.virtual.carried if self.virtual else [self.rank])
        of_process = torch.arange(self.num_batches * size).view(self.num_batches, 1, size)
        places = of_process * number + carried.view(1, -1, 1)  # (steps, processes here, images)
        # What is missing for the last processes is taken from the start.
        places = places.flatten() % (len(self.dataset) * self.num_repeats)
        return iter(order[places // self.num_repeats].tolist())
