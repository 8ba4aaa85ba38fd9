from .digits import Digits
from .image_processor import DeiTImageProcessor
from .imagenet import ImageNet1k
from .samplers import RepeatedAugmentSampler
from .transforms import LoadRandomResizedCrop, ReverseChannels

__all__ = [
    'DeiTImageProcessor',
    'Digits',
    'ImageNet1k',
    'LoadRandomResizedCrop',
    'RepeatedAugmentSampler',
    'ReverseChannels',
]
