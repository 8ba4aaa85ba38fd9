"""3-Augment for a whole batch of images, on the device they are on."""

import torch

from . import three_augment_ops
from .batch_operations import BatchOperations, Plan

NAMES = 'Solarize', 'GaussianBlur', 'Color', 'Brightness', 'Contrast'


class ThreeAugment(BatchOperations):
    """3-Augment and colour jitter, as facebookresearch/deit at ``7e160fe`` has them (arXiv 2204.07118).

    Of every image one is done, each as often as the others: to make it grey, to invert what is 128 or above
    (solarize), or to blur it. Then brightness, contrast and saturation are multiplied by a factor of their
    own each, in an order of the image's own. The results are Pillow's to the bit.

    Args:
        color_jitter (float): How far the factors may be from 1, in [0, 1]; 0 leaves colour jitter out.
            Defaults to 0.3.
        min_radius (float): The least radius of the blur, in pixels, above 0. Defaults to 0.1.
        max_radius (float): The largest, up to 2. Defaults to 2.

    Raises:
        ValueError: If an argument is out of range.
    """

    names = NAMES
    kinds = three_augment_ops.KINDS
    purpose = '3-Augment'

    def __init__(self, color_jitter: float = 0.3, min_radius: float = 0.1, max_radius: float = 2.0):
        super().__init__()
        if not 0 <= color_jitter <= 1:
            raise ValueError(f'color_jitter={color_jitter} is not in [0, 1]')
        if not 0 < min_radius <= max_radius <= 2:
            raise ValueError(
                f'min_radius={min_radius} and max_radius={max_radius} must be above 0, in order, and up to 2'
            )
        self.color_jitter = color_jitter
        self.min_radius, self.max_radius = min_radius, max_radius

    def draw_part(self, number: int) -> Plan:
        """Draw a plan for the images of one virtual process, in four calls."""
        one = torch.randint(3, (1, number))
        radius = torch.empty(1, number, dtype=torch.float64).uniform_(self.min_radius, self.max_radius)
        ops, levels = [one], [radius.where(one == NAMES.index('GaussianBlur'), 0)]  # grey has no colour
        if self.color_jitter:
            order = torch.rand(3, number).argsort(0)
            ops.append(order + NAMES.index('Color'))
            jitter = torch.empty(3, number, dtype=torch.float64)
            levels.append(jitter.uniform_(1 - self.color_jitter, 1 + self.color_jitter))
        made = torch.cat(ops)
        return Plan(made, torch.cat(levels), torch.ones(made.shape))
