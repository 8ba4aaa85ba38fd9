from .cached import LoadCached
from .collate import labels_collate
from .digits import Digits
from .image_folder import ImageFolder
from .image_processor import DeiTImageProcessor
from .imagenet import ImageNet1k
from .samplers import RepeatedAugmentSampler
from .simple_crop import LoadSimpleRandomCrop
from .transforms import LoadImage, LoadRandomResizedCrop, ReverseChannels, TorchResizeEdge

__all__ = [
    'DeiTImageProcessor',
    'Digits',
    'ImageFolder',
    'ImageNet1k',
    'LoadCached',
    'LoadImage',
    'LoadRandomResizedCrop',
    'LoadSimpleRandomCrop',
    'RepeatedAugmentSampler',
    'ReverseChannels',
    'TorchResizeEdge',
    'labels_collate',
]
