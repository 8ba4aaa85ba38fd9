from .digits import Digits
from .imagenet import ImageNet1k
from .loading import LoadRandomResizedCrop
from .sampler import RepeatedAugmentSampler
from .transforms import DeiTImageProcessor, ReverseChannels

__all__ = [
    'DeiTImageProcessor', 'Digits', 'ImageNet1k', 'LoadRandomResizedCrop',
    'RepeatedAugmentSampler', 'ReverseChannels'
]
