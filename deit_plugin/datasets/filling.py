"""Batches that a worker writes into one array."""

from collections.abc import Callable, Iterator
from functools import partial
from numbers import Integral

import torch
from mmpretrain.datasets import PackInputs

from .collate import empty_to_send
from .pieces import Pieces
from .simple_crop import RANDOM_CROPS


class FillsBatches:
    """For a data set of mmengine that can write a whole batch into one array.

    A sample for each image, its dictionaries, and stacking them would take a worker more time. It can where
    the pipeline ends with one of ``RANDOM_CROPS`` and ``PackInputs`` and an image has one label.
    """

    def can_fill(self) -> bool:
        """Whether a batch can be filled."""
        *_, load, pack = (None, None, *self.pipeline.transforms)
        if type(load) not in RANDOM_CROPS or type(pack) is not PackInputs or not len(self):
            return False
        # What a subclass makes of a sample would be left out.
        own = [
            getattr(type(self), name).__module__ for name in ('__getitem__', 'prepare_data', '_rand_another')
        ]
        if any(module.partition('.')[0] not in ('mmengine', 'mmpretrain', 'deit_plugin') for module in own):
            return False
        packs_images = pack.input_key == 'img' and not pack.algorithm_keys
        return packs_images and isinstance(self.get_data_info(0).get('gt_label'), Integral)

    def fill_batch(self, indices: Iterator[int], number: int) -> dict:
        """A batch as :func:`labels_collate` makes it.

        Args:
            indices (Iterator[int]): Of the images. The next one is asked for when an image is done.
            number (int): How many there are.

        Returns:
            dict: ``inputs`` (B, 3, H, W), uint8 BGR, and ``labels`` (B, ), int64; in place of
            ``inputs`` what :class:`Pieces` makes, if the device resizes.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If an image is broken, unless these are resampled.
            RuntimeError: If too many in a row are broken.
        """
        load = self.pipeline.transforms[-2]
        if load.on_device is not None:
            pieces = Pieces(load.size)
            labels = [self._fill(partial(load.send, pieces), index) for index in indices]
            return dict(pieces.batch(), labels=torch.tensor(labels))
        images = empty_to_send(number, 3, *load.size)
        labels = [self._fill(partial(load.load_into, image), index) for image, index in zip(images, indices)]
        return dict(inputs=images, labels=torch.tensor(labels))

    def _fill(self, put: Callable[[dict], bool], index: int) -> int:
        """The label of the image that was put, which is another one if that of the index is broken."""
        for _ in range(self.max_refetch + 1):
            results = self.get_data_info(index)
            for transform in self.pipeline.transforms[:-2]:
                results = results and transform(results)
            if results and put(results):
                return int(results['gt_label'])
            index = self._rand_another()
        raise RuntimeError(f'{self.max_refetch + 1} images in a row cannot be loaded: the warnings name them')
