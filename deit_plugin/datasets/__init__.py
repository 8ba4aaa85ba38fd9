from .digits import Digits
from .imagenet import ImageNet1k
from .sampler import RepeatedAugmentSampler

__all__ = ['Digits', 'ImageNet1k', 'RepeatedAugmentSampler']
