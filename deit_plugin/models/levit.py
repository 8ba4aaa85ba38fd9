"""LeViT of mmpretrain, as it is trained."""

from collections.abc import Mapping

import torch.nn as nn
from mmpretrain.models import LeViT, LeViTClsHead
from mmpretrain.models.backbones.levit import Attention, Residual
from mmpretrain.registry import MODELS

_ARCH = ('embed_dims', 'num_heads', 'depths', 'key_dims')


@MODELS.register_module()
class TrainableLeViT(LeViT):
    """mmpretrain's ``LeViT`` (arXiv 2104.01136), mended for training; its weights are loaded as they are.

    - ``arch`` may be a dict. mmpretrain asks for other keys than it reads, so that it refuses every one.
    - The last norm of each residual block starts at 0, as in facebookresearch/LeViT and timm; at 1 in
      mmpretrain.
    - Weights that are loaded, moved or cast in evaluation mode take effect: mmpretrain's attention biases
      are then those of before.

    Args:
        arch (str | dict): ``'128s'``, ``'128'``, ``'192'``, ``'256'``, ``'384'``, or lists ``embed_dims``,
            ``num_heads``, ``depths`` and ``key_dims``, one value for each stage.
        deploy (bool): Whether the norms are merged into the layers, to load such weights. Defaults to False.
        **kwargs: As for ``LeViT``.

    Raises:
        ValueError: If a dict has other keys, or lists of other lengths.
    """

    def __init__(self, arch: str | Mapping, deploy: bool = False, **kwargs):
        if isinstance(arch, Mapping):
            self.arch_zoo = dict(custom=_checked(arch))
            arch = 'custom'
        super().__init__(arch, **kwargs)
        for residual in self.modules():
            if isinstance(residual, Residual):
                nn.init.zeros_(_last_norm(residual.block).weight)
        if deploy:
            self.switch_to_deploy()
        self.register_load_state_dict_post_hook(_update_biases)

    def _apply(self, *args, **kwargs):
        result = super()._apply(*args, **kwargs)
        _update_biases(self)
        return result


@MODELS.register_module()
class TrainableLeViTClsHead(LeViTClsHead):
    """mmpretrain's ``LeViTClsHead`` with weights as in facebookresearch/LeViT, and with ``deploy=True``.

    Args:
        init_cfg (dict): How the weights are drawn. Defaults to a truncated normal distribution of
            standard deviation 0.02 and zero biases.
        deploy (bool): Whether the norms are merged into the classifiers, to load such weights; mmpretrain's
            raises a TypeError. Defaults to False.
        **kwargs: As for ``LeViTClsHead``.
    """

    def __init__(
        self,
        init_cfg: dict = dict(type='TruncNormal', layer='Linear', std=0.02),
        deploy: bool = False,
        **kwargs,
    ):
        super().__init__(init_cfg=init_cfg, **kwargs)
        if deploy:
            self.switch_to_deploy()


def _update_biases(backbone: LeViT, *args):
    if not backbone.training:
        backbone.eval()  # mmpretrain gathers them here


def _last_norm(block: nn.Module) -> nn.Module:
    return block.proj[-1].bn if isinstance(block, Attention) else block.linear2.bn


def _checked(arch: Mapping) -> dict:
    lengths = {len(value) for value in arch.values() if isinstance(value, (list, tuple))}
    lists = all(isinstance(value, (list, tuple)) for value in arch.values())
    if set(arch) != set(_ARCH) or not lists or len(lengths) != 1:
        raise ValueError(
            f'arch={dict(arch)!r} is none of a LeViT: give lists {", ".join(_ARCH)}, one value for each stage'
        )
    return dict(arch)
