"""The data preprocessor: augmentation of a batch on its device."""

from collections.abc import Callable, Sequence

import torch
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from ..draws import parts
from .batch_operations import BatchOperations
from .erasing import BatchErasing
from .mixing import SentIndices
from .pieces import images_of
from .rand_augment import RandAugment
from .three_augment import ThreeAugment


@MODELS.register_module()
class DeiTDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's ``ClsDataPreprocessor`` with what the recipe does to a batch: RandAugment or 3-Augment
    before normalisation, random erasing after it and before mixup and cutmix, all on the device of the
    images.

    Erasing fills a box with values from N(0, 1), each pixel and channel its own. mmpretrain's transform
    erases before normalisation, so its values are clipped to the range of a pixel.

    Args:
        rand_augment (dict, optional): The arguments of :class:`RandAugment`; an empty dict is the
            recipe's. The images must be uint8 and of one size. Defaults to None: no RandAugment.
        three_augment (dict, optional): The arguments of :class:`ThreeAugment` in its place; an empty dict is
            DeiT III's. Defaults to None: no 3-Augment.
        erasing (float): The probability that a box of an image is erased, in [0, 1]. Its area is 0.02
            to 1/3 of the image, the logarithm of its aspect ratio uniform in +-log(0.3).
            Defaults to 0.
        normalized_input (bool): Whether images of a floating-point type come normalised and in RGB, as
            :class:`DeiTImageProcessor` makes them, and are left as they are. Otherwise they are
            refused. uint8 images are normalised here in any case. Defaults to False.
        **kwargs: As for ``ClsDataPreprocessor``.

    Raises:
        ValueError: If the probability is not in [0, 1], if both augmentations are set, or if images are of a
            floating-point type and ``normalized_input`` is False.
    """

    def __init__(
        self,
        rand_augment: dict | None = None,
        three_augment: dict | None = None,
        erasing: float = 0.0,
        normalized_input: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self._non_blocking = True  # of images in pinned memory
        if not 0 <= erasing <= 1:
            raise ValueError(f'erasing={erasing} is not in [0, 1]')
        if rand_augment is not None and three_augment is not None:
            raise ValueError(
                f'rand_augment={rand_augment} and three_augment={three_augment} exclude each other: '
                'set one of them to None'
            )
        self._operations: BatchOperations | None = None
        if rand_augment is not None:
            self._operations = RandAugment(**rand_augment)
        elif three_augment is not None:
            self._operations = ThreeAugment(**three_augment)
        self._erasing = BatchErasing(erasing)
        # It does all but the images.
        self._unnormalized = ClsDataPreprocessor(num_classes=self.num_classes) if normalized_input else None

    @property
    def batch_augments(self) -> Callable | None:
        """Erases and mixes a batch. mmpretrain's ``SwitchRecipeHook`` sets another mixing, or None."""
        return None if self._mix is None else self._erase_and_mix

    @batch_augments.setter
    def batch_augments(self, mix: Callable | None):
        self._mix = mix
        if mix is not None:  # else the parent would not mix
            self.to_onehot = True

    def forward(self, data: dict, training: bool = False) -> dict:
        """As ``ClsDataPreprocessor``, with the augmentation in training."""
        if 'pieces' in data:
            made = images_of(data, self.device).flip(1)  # BGR, as mmpretrain has it
            data = dict(inputs=made, labels=data['labels'])
        if 'labels' in data:
            return self._of_labels(data, training)
        if data['inputs'][0].is_floating_point():
            if self._unnormalized is None:
                raise ValueError(
                    f'The images are {data["inputs"][0].dtype}: hand them on as uint8 (no '
                    '`to_float32=True`), or set `data_preprocessor.normalized_input=True` if they come '
                    'normalised and in RGB, as from DeiTImageProcessor'
                )
            self._unnormalized.to_onehot = self.to_onehot
            self._unnormalized.batch_augments = self.batch_augments
            data = self._unnormalized(data, training)
        else:
            if training and self._operations is not None:
                data = {**data, 'inputs': self._augment(data['inputs'])}
            data = super().forward(data, training)
        if training and self._mix is None:
            data['inputs'] = self._erase(data['inputs'])
        return data

    def _of_labels(self, data: dict, training: bool) -> dict:
        """Of a batch of ``labels_collate``: its labels are made one-hot and mixed at once, and then handed to
        the samples; mmpretrain does that for each of them."""
        inputs = self.forward(dict(inputs=data['inputs']), training=training)['inputs']
        fields = dict(gt_label=data['labels'].to(self.device, non_blocking=True).unsqueeze(1))
        if self.to_onehot:
            if self.num_classes is None:
                raise ValueError('For one-hot labels set `data_preprocessor.num_classes`')
            # Without the values that `one_hot` reads to check them.
            labels = fields['gt_label']
            scores = labels.new_zeros(len(labels), self.num_classes).scatter_(1, labels, 1)
            if training and self._mix is not None:
                inputs, scores = self._erase_and_mix(inputs, scores)
            fields['gt_score'] = scores
        return dict(inputs=inputs, data_samples=_samples_of(**fields))

    def _augment(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        inputs = self.cast_data(inputs)
        if not isinstance(inputs, torch.Tensor):
            inputs = torch.stack(inputs)
        if not self.to_rgb:
            return self._operations(inputs)
        return self._operations(inputs.flip(1)).flip(1)  # it takes RGB

    def _erase_and_mix(self, inputs: torch.Tensor, scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self._erase(inputs)
        with SentIndices():
            mixed = [self._mix(inputs[part], scores[part]) for part in parts(len(inputs), 'mixing')]
        return tuple(torch.cat(of_parts) if len(mixed) > 1 else of_parts[0] for of_parts in zip(*mixed))

    def _erase(self, inputs: torch.Tensor) -> torch.Tensor:
        # Mostly in place: they are this batch's alone.
        return self._erasing(inputs) if self._erasing.probability > 0 else inputs


def _samples_of(**fields: torch.Tensor) -> list[DataSample]:
    """B samples, each with a row of these fields (B, ...)."""
    made = []
    for rows in zip(*(value.unbind() for value in fields.values())):
        sample = DataSample()
        for name, row in zip(fields, rows):
            sample.set_field(row, name, dtype=torch.Tensor)
        made.append(sample)
    return made
