"""Repeated augmentation (Hoffer et al. 2020, arXiv 1901.09335)."""

from collections.abc import Iterator, Sized

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmpretrain.datasets import RepeatAugSampler
from mmpretrain.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatedAugmentSampler(RepeatAugSampler):
    """mmpretrain's ``RepeatAugSampler`` with a switch.

    With repetition an epoch draws each of a third of the images three times,
    for different processes; its length stays that of the dataset. On ImageNet
    at a batch of 1024 and ``drop_last=True`` that is 1251 iterations and about
    427,000 different images.

    Args:
        dataset (Sized): The dataset.
        repeat (bool | str): True, False or ``'distributed'``: only if there
            are several processes, as in the reference.
            Defaults to ``'distributed'``.
        num_repeats (int): Defaults to 3.
        seed (int, optional): Seed of the order, shared by all processes.

    Raises:
        ValueError: If ``repeat`` is something else.
    """

    def __init__(
        self,
        dataset: Sized,
        repeat: bool | str = 'distributed',
        num_repeats: int = 3,
        seed: int | None = None,
    ):
        if repeat not in (True, False, 'distributed'):
            raise ValueError(f"repeat={repeat!r} is unknown: choose True, False or 'distributed'")
        on = get_world_size() > 1 if repeat == 'distributed' else repeat
        super().__init__(dataset, num_repeats=num_repeats if on else 1, seed=seed)
        state = f'on, x{num_repeats}' if on else 'off'
        print_log(
            f'Repeated augmentation: {state} (repeat={repeat!r}, {get_world_size()} process(es))',
            logger='current',
        )

    def __iter__(self) -> Iterator[int]:
        """As the parent's, without the list of all that is repeated."""
        order = torch.arange(len(self.dataset))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(len(self.dataset), generator=generator)
        places = torch.arange(self.num_selected_samples) * self.world_size + self.rank
        # What is missing for the last processes is taken from the start.
        places %= len(self.dataset) * self.num_repeats
        return iter(order[places // self.num_repeats].tolist())
