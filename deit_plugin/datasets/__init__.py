from .digits import Digits
from .imagenet import ImageNet1k
from .sampler import RepeatedAugmentSampler
from .transforms import ReverseChannels

__all__ = [
    'Digits', 'ImageNet1k', 'RepeatedAugmentSampler', 'ReverseChannels'
]
