"""Heads that are not evaluated with random weights."""

from collections.abc import Sequence

import torch.nn as nn
from mmpretrain.models import VisionTransformerClsHead
from mmpretrain.registry import MODELS

from ..messages import some


class FilledHead(nn.Module):
    """A head that notes which of its weights a checkpoint left out, and then refuses evaluation mode.

    mmpretrain's ``get_model`` warns of them, and gives a model that guesses. To train is to fill them, and so
    is another checkpoint.
    """

    unfilled: Sequence[str] = ()

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(_note_unfilled)

    def train(self, mode: bool = True):
        """Set the mode.

        Raises:
            ValueError: If it is evaluation, of weights that were not loaded.
        """
        if not mode and self.unfilled:
            raise ValueError(
                f'The checkpoint does not fill {some(self.unfilled)}, which would be random. Is it of a '
                'model with as many classes and the same tokens? To train from it, use `load_from`, or '
                "`backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE)`"
            )
        return super().train(mode)

    def loss(self, *args, **kwargs) -> dict:
        """As the parent's; from now on the weights are learnt."""
        self.unfilled = ()
        return super().loss(*args, **kwargs)


def _note_unfilled(head: FilledHead, state_dict: dict, prefix: str, *args):
    head.unfilled = [
        prefix + name
        for name, value in head.state_dict().items()
        if getattr(state_dict.get(prefix + name), 'shape', None) != value.shape
    ]


@MODELS.register_module()
class DeiTHead(FilledHead, VisionTransformerClsHead):
    """The head of a plain DeiT: mmpretrain's, which is not evaluated with random weights.

    Weights are drawn as in facebookresearch/deit.

    Args:
        **kwargs: As for ``VisionTransformerClsHead``. ``init_cfg`` defaults to a normal distribution of
            standard deviation 0.02 and zero biases.
    """

    def __init__(self, init_cfg: dict = dict(type='TruncNormal', layer='Linear', std=0.02), **kwargs):
        super().__init__(init_cfg=init_cfg, **kwargs)
