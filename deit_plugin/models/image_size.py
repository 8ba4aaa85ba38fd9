"""The size of images that a classifier is built for."""

from collections.abc import Mapping

import torch
from timm.models import get_pretrained_cfg, is_model

# timm says that these take one size, and they take any.
_ANY_SIZE = ('crossvit', 'efficientvit_m', 'sequencer2d', 'swiftformer', 'twins', 'xcit')


def image_size_of_config(model: Mapping) -> tuple[str, tuple[int, int]] | None:
    """The one size (height, width) of images that a classifier takes, and the option that sets it.

    Known of timm's models, and of mmpretrain's LeViT and EfficientFormer, whose attention biases are of it.

    Args:
        model (Mapping): The config of the classifier.

    Returns:
        tuple | None: Such as ``('img_size', (224, 224))``, or ``('', (224, 224))`` where no option does. None
        if it takes any size, or that is not known.
    """
    name = str(model.get('model_name'))
    if is_model(name):
        known = get_pretrained_cfg(name)
        any_size = model.get('dynamic_img_size') or model.get('strict_img_size') is False
        if known is None or not known.fixed_input_size or any_size or name.startswith(_ANY_SIZE):
            return None
        option = '' if name.startswith('efficientformer_') else 'img_size'
        return option, _pair(model.get('img_size') or known.input_size[1:])
    backbone = model.get('backbone')
    backbone = backbone if isinstance(backbone, Mapping) else {}
    kind = str(getattr(backbone.get('type'), '__name__', backbone.get('type'))).rpartition('.')[2]
    if kind in ('LeViT', 'TrainableLeViT'):
        return 'backbone.img_size', _pair(backbone.get('img_size', 224))
    arch = backbone.get('arch')
    if kind == 'EfficientFormer' and not (isinstance(arch, Mapping) and arch.get('vit_num') == 0):
        return '', (224, 224)
    return None


def another_size(known: tuple[str, tuple[int, int]] | None, images: torch.Tensor, who: str) -> str:
    """What to do about images that are not of the size that a classifier takes, or ''.

    It explains an error, and is none: of some of timm's models ``fixed_input_size`` is not so.

    Args:
        known (tuple, optional): See :func:`image_size_of_config`.
        images (torch.Tensor): (B, 3, H, W).
        who (str): The classifier.
    """
    given = tuple(images.shape[-2:])
    if known is None or known[1] == given:
        return ''
    option, size = known
    side = given[0] if given[0] == given[1] else given
    setting = f'set its `{option}={side}`, with weights of that size, or ' if option else ''
    return f'The images are {given} (height, width), and {who} takes {size}: {setting}crop the images to that'


def _pair(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)
