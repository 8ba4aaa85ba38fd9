from .digits import Digits
from .folders import ImageFolder, ImageNet1k
from .image_processor import DeiTImageProcessor
from .samplers import RepeatedAugmentSampler
from .transforms import LoadImage, LoadRandomResizedCrop, ReverseChannels

__all__ = [
    'DeiTImageProcessor',
    'Digits',
    'ImageFolder',
    'ImageNet1k',
    'LoadImage',
    'LoadRandomResizedCrop',
    'RepeatedAugmentSampler',
    'ReverseChannels',
]
