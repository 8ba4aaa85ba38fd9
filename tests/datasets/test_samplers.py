"""The order of the images is mmpretrain's."""

import pytest
from mmpretrain.datasets import RepeatAugSampler

from deit_plugin.datasets import RepeatedAugmentSampler, samplers


@pytest.mark.parametrize('processes', [1, 2, 3, 8])
@pytest.mark.parametrize('size', [9, 100, 1000])
@pytest.mark.parametrize('repeats', [1, 3, 4])
@pytest.mark.parametrize('shuffle', [True, False])
def test_indices_are_mmpretrains(monkeypatch, processes, size, repeats, shuffle):
    for module in ('mmpretrain.datasets.samplers.repeat_aug', samplers.__name__):
        monkeypatch.setattr(f'{module}.get_world_size', lambda: processes, raising=False)
    for rank in range(processes):
        for name in ('get_dist_info', 'is_main_process'):
            value = (rank, processes) if name == 'get_dist_info' else False
            path = f'mmpretrain.datasets.samplers.repeat_aug.{name}'
            monkeypatch.setattr(path, lambda value=value: value)
        ours = RepeatedAugmentSampler(range(size), repeat=True, num_repeats=repeats, seed=5)
        theirs = RepeatAugSampler(range(size), num_repeats=repeats, seed=5, shuffle=shuffle)
        ours.shuffle = shuffle
        for epoch in (0, 3):
            ours.set_epoch(epoch), theirs.set_epoch(epoch)
            assert list(ours) == list(theirs)
            assert len(list(ours)) == len(ours)
