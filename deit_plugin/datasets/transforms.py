"""What mmpretrain's transforms lack."""
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ReverseChannels(BaseTransform):
    """From RGB to BGR or back.

    mmpretrain's CIFAR gives RGB images, but its transforms (RandAugment's
    colour operations) take an image for BGR.
    """

    def transform(self, results: dict) -> dict:
        """Reverse the channels of ``img``, (H, W, C)."""
        results['img'] = results['img'][..., ::-1]
        return results
