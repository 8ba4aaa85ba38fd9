"""Seeding of each sample's random draws by its place in the training."""

from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial

from mmengine.dist import get_world_size
from torch.utils.data import DataLoader, Sampler

from ..draws import draws_put_back, seed_cpu
from ..virtual_processes import VirtualProcesses
from .collate import labels_collate
from .filling import FillsBatches


class PlacedIndex(int):
    """The index of a sample that knows its place in the training.

    Args:
        index (int): The index in the dataset.
        place (tuple[int]): Seed, epoch and position in the epoch.
        step (int): From the position to that of the next sample of a batch,
            whose index may then be a plain ``int``. Defaults to 1.
    """

    def __new__(cls, index: int, place: tuple, step: int = 1):
        self = super().__new__(cls, index)
        self.place, self.step = place, step
        return self

    def __getnewargs__(self):
        return int(self), self.place, self.step


class PlacedSampler(Sampler):
    """Another sampler's indices, the first of each virtual process's batch as :class:`PlacedIndex`.

    The position counts over all virtual processes: it is i * V + p for the
    i-th index of process p of V, so that no two samples of an epoch share
    one, nor do the copies of an image in repeated augmentation.

    Args:
        sampler (Sampler): The sampler of this real process.
        seed (int): The same in all processes.
        virtual (VirtualProcesses, optional): Defaults to the real ones, with
            batches of one: each index knows its place.

    Attributes:
        epoch (int): Of the next pass; each pass adds one.
    """

    def __init__(self, sampler: Sized, seed: int, virtual: VirtualProcesses | None = None):
        self.sampler = sampler
        self.seed = seed
        self.virtual = virtual or VirtualProcesses(get_world_size(), 1)
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        processes, size = self.virtual
        carried = self.virtual.carried
        for i, index in enumerate(self.sampler):
            batch, within = divmod(i, size)
            if within:
                yield int(index)  # quicker to send to a worker
            else:
                step, place = divmod(batch, len(carried))
                position = step * size * processes + carried[place]
                yield PlacedIndex(index, (self.seed, epoch, position), processes)

    def __len__(self) -> int:
        return len(self.sampler)


def named_virtual_processes(loader: DataLoader) -> VirtualProcesses | None:
    """Those that the loader's sampler names, if any."""
    sampler = getattr(getattr(loader, 'batch_sampler', None), 'sampler', None)
    return getattr(getattr(sampler, 'sampler', sampler), 'virtual', None)


def virtual_processes_of(loader: DataLoader) -> VirtualProcesses:
    """Those that the loader's sampler names, or the real ones with the loader's batch."""
    return named_virtual_processes(loader) or VirtualProcesses(get_world_size(), batch_size_of(loader))


def batch_size_of(loader: DataLoader) -> int | None:
    """Images in a batch, as far as the loader tells."""
    return loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)


def collates_labels(loader: DataLoader) -> bool:
    """Whether a loader's batches are those of :func:`labels_collate`."""
    return getattr(loader.collate_fn, 'func', loader.collate_fn) is labels_collate  # mmengine makes a partial


def fills_batches(loader: DataLoader) -> bool:
    """Whether the workers of a loader may fill whole batches, once it is told the places of its samples."""
    dataset = loader.dataset
    return collates_labels(loader) and isinstance(dataset, FillsBatches) and dataset.can_fill()


def no_iteration(loader: DataLoader) -> str:
    """Why an epoch of a loader has no iteration, and what to set; empty if it has some."""
    if len(loader):
        return ''
    images, virtual = len(loader.dataset), named_virtual_processes(loader)
    if virtual is None:
        return (
            f'a batch of {loader.batch_size} is more than the {images} images, and drop_last leaves out what '
            'is less: set a smaller `train_dataloader.batch_size`'
        )
    return (
        f'{virtual}, {virtual.number * virtual.batch_size} in a step, and the data set has {images}: set '
        '`train_dataloader.sampler.processes` or `train_dataloader.sampler.batch_size` lower, and '
        '`train_dataloader.batch_size` to a multiple of the latter'
    )


def place_draws(loader: DataLoader, seed: int) -> PlacedSampler:
    """Make the order of a loader's samples, and what is drawn for each, follow from the seed and the place.

    Args:
        loader (DataLoader): Of a training. A second call changes the seed alone.
        seed (int): The same in all processes; the sampler gets it, too.

    Returns:
        PlacedSampler: The loader's sampler, whose ``epoch`` is that of the next pass.

    Raises:
        ValueError: If the loader has no batches of indices, or no batch at all.
    """
    if reason := no_iteration(loader):
        raise ValueError(f'An epoch has no iteration, so nothing would be learnt: {reason}')
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    if sampler is None or not batch_size_of(loader):
        raise ValueError(
            'SeedHook needs a train_dataloader with a batch_size and a '
            'sampler, whose indices tell it the place of a sample'
        )
    if isinstance(sampler, PlacedSampler):
        sampler = sampler.sampler
    sampler.seed = seed
    if hasattr(sampler, '_indices_of_rank'):  # InfiniteSampler's, begun
        sampler.indices = sampler._indices_of_rank()
    placed = PlacedSampler(sampler, seed, virtual_processes_of(loader))
    loader.batch_sampler.sampler = placed
    draw_by_place(loader.dataset, filled=fills_batches(loader))
    return placed


def draw_by_place(dataset, filled: bool = False):
    """Seed a data set's draws by the place of each sample.

    A DataLoader asks a dataset for a whole batch where it has ``__getitems__``. It is given one here;
    one that it has itself is called, with plain indices, for the batch of each virtual process, after the
    place of its first sample was made the seed.

    Args:
        dataset (Dataset): Any dataset with indices. A second call changes nothing.
        filled (bool): Whether the dataset fills a batch (:func:`fills_batches`), unless it has batches of
            its own. Defaults to False.
    """
    own = getattr(dataset, '__getitems__', None)
    if isinstance(own, partial) and own.func is get_placed_items:
        return
    dataset.__getitems__ = partial(get_placed_items, dataset, own, filled=filled and own is None)


def get_placed_items(
    dataset, own: Callable | None, indices: Sequence[int], filled: bool = False
) -> list | dict:
    """The samples of a batch, each drawn by its place.

    The generators are afterwards in the state that they had before.

    Args:
        dataset (Dataset): Any dataset with indices.
        own (Callable, optional): The ``__getitems__`` that it had before.
        indices (Sequence[int]): A plain ``int`` has the place after that of the index before it, and
            none before the first :class:`PlacedIndex`.
        filled (bool): Whether the dataset fills the batch. Defaults to False.
    """
    with draws_put_back():
        placed = _placed(indices)
        if filled:
            return dataset.fill_batch(placed, len(indices))
        if own is None:
            return [dataset[index] for index in placed]
        starts = [i for i, index in enumerate(indices) if i == 0 or isinstance(index, PlacedIndex)]
        found = []
        for start, end in zip(starts, [*starts[1:], len(indices)]):
            next(_placed(indices[start:end]))
            found.append(own([int(index) for index in indices[start:end]]))
        return found[0] if len(found) == 1 else [sample for samples in found for sample in samples]


def _placed(indices: Sequence[int]) -> Iterator[int]:
    """Each index, after its place was made the seed."""
    place = None
    for index in indices:
        if isinstance(index, PlacedIndex):
            place, step = index.place, index.step
        if place is not None:
            seed_cpu('sample', *place)
            place = (*place[:-1], place[-1] + step)
        yield int(index)
