"""What a sample draws depends on its place in the training alone."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler, RepeatDataset
from torch.utils.data import DataLoader, Dataset, Subset
from trainings import dots, draw

from deit_plugin.datasets.seeded import PlacedIndex, PlacedSampler, draw_by_place, get_placed_items
from deit_plugin.draws import seed_cpu
from deit_plugin.virtual_processes import VirtualProcesses


class Draws(Dataset):
    """A sample is its index and what it draws."""

    def __getitem__(self, index):
        return index, draw()

    def __len__(self):
        return 20


class Batches(Draws):
    """With batches of its own, which draw something for all samples, too."""

    def __init__(self):
        self.asked = []

    def __getitems__(self, indices):
        self.asked.append(indices)
        common = draw()
        return [(index, common, draw()) for index in indices]


def batches(dataset, size, seed=0, **kwargs):
    """What a data loader fetches in an epoch."""
    sampler = PlacedSampler(range(len(dataset)), seed, VirtualProcesses(1, size))
    return list(DataLoader(dataset, size, sampler=sampler, collate_fn=list, **kwargs))


def samples(dataset, size, **kwargs):
    return sum(batches(dataset, size, **kwargs), [])


def items(dataset, indices):
    """What the pipeline draws for each sample, and from which image."""
    return [
        (i['data_samples'].sample_idx, i['data_samples'].drawn)
        for i in get_placed_items(dataset, None, indices)
    ]


def test_draws_depend_on_the_place_alone():
    dataset = dots()
    sampler = PlacedSampler(DefaultSampler(dataset, seed=5), 5)
    first, second = list(sampler), list(sampler)
    expected = items(dataset, first)
    assert len(set(drawn for _, drawn in expected)) == 20
    assert any(i != int(j) for (i, _), j in zip(expected, first))  # refetched
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    assert items(dataset, first[::-1]) == expected[::-1]
    assert pickle.loads(pickle.dumps(first[3])).place == (5, 0, 3)
    assert random.getstate() == before[0]
    assert str(np.random.get_state()) == str(before[1])
    assert torch.equal(torch.get_rng_state(), before[2])
    sampler = PlacedSampler(DefaultSampler(dataset, seed=5), 6)
    drawn = [set(d for _, d in items(dataset, indices)) for indices in (first, second, list(sampler))]
    assert len(set.union(*drawn)) == 60
    assert len(set(np.ravel(list(drawn[0])))) == 60  # by each generator


places = st.tuples(st.integers(-(2**63), 2**64), st.integers(0, 1000), st.integers(0, 2**40))


@settings(max_examples=50, deadline=None)
@given(
    placed=st.lists(st.tuples(st.integers(0, 19), places), min_size=1, max_size=8),
    before=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_a_place_gives_the_same_draws_in_any_batch(placed, before, data):
    """Whatever was drawn before, and whichever samples are fetched with it."""
    dataset = Draws()
    draw_by_place(dataset)
    indices = [PlacedIndex(index, place) for index, place in placed]
    together = dict(zip(placed, dataset.__getitems__(indices)))
    random.seed(before), np.random.seed(before), torch.manual_seed(before)
    states = random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()
    order = data.draw(st.permutations(indices))
    cut = data.draw(st.integers(0, len(order)))
    apart = [item for part in (order[:cut], order[cut:]) for item in dataset.__getitems__(part)]
    for index, item in zip(order, apart):
        assert item == together[int(index), index.place]
        assert type(item[0]) is int
    # An index at two places draws two things, two at one place the same.
    assert len({drawn for _, drawn in together.values()}) == len({place for _, place in placed})
    assert states == (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())


def test_datasets_in_datasets_and_spawned_workers():
    """As these pickle the dataset with what is added to it."""
    dataset = RepeatDataset(dots(), 2)
    indices = list(PlacedSampler(range(40), 0))
    expected = items(dataset, indices)
    assert len(set(drawn for _, drawn in expected)) == 40
    draw_by_place(dataset)
    for again in (dataset, pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert again.__getitems__.args == (again, None)
        got = again.__getitems__(indices)
        assert [(i['data_samples'].sample_idx, i['data_samples'].drawn) for i in got] == expected


def test_the_workers_of_a_loader_draw_alike():
    dataset = Draws()
    draw_by_place(dataset)
    expected = samples(dataset, 5)
    assert len(set(drawn for _, drawn in expected)) == 20
    assert samples(dataset, 3) == expected
    assert samples(dataset, 4, num_workers=2) == expected
    assert samples(dataset, 5, seed=1) != expected


def test_a_plain_index_draws_on():
    dataset = Draws()
    draw_by_place(dataset)
    seed_cpu('before')
    expected = draw()
    seed_cpu('before')
    assert dataset.__getitems__([3]) == [(3, expected)]


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_of_the_datasets_own_draw_by_their_place(workers):
    dataset = Batches()
    draw_by_place(dataset)
    first = batches(dataset, 5, num_workers=workers)
    assert first == batches(dataset, 5) == batches(pickle.loads(pickle.dumps(dataset)), 5)
    for batch in first:
        assert len({common for _, common, _ in batch}) == 1
        assert len({drawn for *_, drawn in batch}) == 5
    assert len({batch[0][1] for batch in first}) == 4  # each draws something else
    assert [index for batch in first for index, *_ in batch] == list(range(20))
    # By the place of its first sample alone, so from there on in the same order.
    seed_cpu('before')
    part = dataset.__getitems__([PlacedIndex(5, (0, 0, 5))])
    assert part == first[1][:1]
    after = draw()
    seed_cpu('before')
    assert draw() == after


def test_batches_of_several_virtual_processes_are_asked_for_apart():
    """So that they draw alike in whichever batch they come."""
    dataset = Batches()
    draw_by_place(dataset)
    sampler = PlacedSampler(range(20), 0, VirtualProcesses(1, 5))
    whole = list(DataLoader(dataset, 10, sampler=sampler, collate_fn=list))
    assert sum(whole, []) == samples(dataset, 5)
    assert dataset.asked[:2] == [list(range(5)), list(range(5, 10))]


def test_a_batch_of_the_datasets_own_has_plain_indices():
    """A list, as without the hook: a data set may look up what an int alone finds."""
    dataset = Batches()
    draw_by_place(dataset)
    batches(dataset, 8)
    assert dataset.asked == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert {type(index) for indices in dataset.asked for index in indices} == {int}


def test_torchs_subset_has_batches_of_its_own():
    subset = Subset(Draws(), range(0, 20, 2))
    draw_by_place(subset)
    first = batches(subset, 5)
    assert [index for batch in first for index, _ in batch] == list(range(0, 20, 2))
    assert batches(subset, 5) == first
    assert len({drawn for batch in first for _, drawn in batch}) == 10


@pytest.mark.parametrize('kind', [Draws, Batches])
def test_a_second_time_changes_nothing(kind):
    dataset = kind()
    draw_by_place(dataset)
    added = dataset.__getitems__
    expected = samples(dataset, 5)
    draw_by_place(dataset)
    assert dataset.__getitems__ is added
    assert samples(dataset, 5) == expected
    copied = pickle.loads(pickle.dumps(dataset))
    added = copied.__getitems__
    draw_by_place(copied)
    assert copied.__getitems__ is added and samples(copied, 5) == expected


def test_same_place_of_a_sample_and_an_iteration():
    seeds = {seed_cpu(kind, 0, 1, 2) for kind in ('sample', 'iteration')}
    assert len(seeds) == 2
    seed_cpu('sample', 0, 1, 2)
    first = draw()
    seed_cpu('sample', 0, 1, 2)
    assert draw() == first and len(set(first)) == 3
