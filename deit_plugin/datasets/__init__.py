from .digits import Digits
from .folders import ImageFolder, ImageNet1k
from .image_processor import DeiTImageProcessor
from .samplers import RepeatedAugmentSampler
from .transforms import LoadRandomResizedCrop, ReverseChannels

__all__ = [
    'DeiTImageProcessor',
    'Digits',
    'ImageFolder',
    'ImageNet1k',
    'LoadRandomResizedCrop',
    'RepeatedAugmentSampler',
    'ReverseChannels',
]
