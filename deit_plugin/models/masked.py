"""DeiT as the encoder of masked-image pre-training."""

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model.weight_init import trunc_normal_
from mmpretrain.registry import MODELS

from .backbone import DeiT


@MODELS.register_module()
class MaskedDeiT(DeiT):
    """DeiT that sees a mask token in place of each masked patch.

    For mmpretrain's ``SimMIM``, with ``SimMIMLinearDecoder`` as the neck and
    ``SimMIMHead`` with ``PixelReconstructionLoss(criterion='L1', channel=3)``
    as the head: SimMIM (Xie et al. 2021, arXiv 2111.09886) as in
    transformers' ``DeiTForMaskedImageModeling``, whose loss it equals for the
    same weights and mask. Unlike there, where the loss is 0, a batch without
    any masked patch has the loss NaN.

    The mask token is drawn like the other tokens, as microsoft/SimMIM does at
    ``0e71746`` (its ViT cuts the distribution at one standard deviation);
    transformers starts from zeros. It trains even where ``frozen_stages``
    freezes the other tokens.

    A checkpoint loads into the plain ``DeiT``, which leaves the mask token
    out. Into this class a plain one loads too; the mask token then keeps its
    initial value, and a strict load is refused.

    Args:
        out_type (str): As for ``DeiT``; the neck needs ``'featmap'``.
            Defaults to ``'featmap'``.
        **kwargs: As for ``DeiT``. transformers' model always has
            ``distilled=True``.

    Raises:
        ValueError: As for ``DeiT``, and if a mask is not of its shape.
    """

    def __init__(self, *args, out_type: str = 'featmap', **kwargs):
        super().__init__(*args, out_type=out_type, **kwargs)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.embed_dims))
        trunc_normal_(self.mask_token, std=0.02)

    def init_weights(self):
        """Draw the weights anew, then apply ``init_cfg``."""
        trunc_normal_(self.mask_token, std=0.02)
        super().init_weights()

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> tuple:
        """Encode images of which some patches are hidden.

        Args:
            x (torch.Tensor): Normalised images (B, in_channels, H, W).
            mask (torch.Tensor, optional): What is hidden, one value a patch
                (B, H / patch height, W / patch width): 1 or True is masked,
                0 or False visible. None hides nothing. Defaults to None.

        Returns:
            tuple: One entry for each of ``out_indices``, by default the
            feature map (B, C, H / patch height, W / patch width) of the last
            layer.

        Raises:
            ValueError: If the mask has another shape, or if the image does
                not fit the patch size.
        """
        if mask is None:
            return super().forward(x)
        x, grid = self._embed(x)  # (B, N, C)
        self._check_mask(mask, (len(x), *grid))
        mask = mask.flatten(1).unsqueeze(-1).bool()  # (B, N, 1)
        return self._encode(torch.where(mask, self.mask_token, x), grid)

    @staticmethod
    def _check_mask(mask: torch.Tensor, shape: Sequence[int]):
        if tuple(mask.shape) != tuple(shape):
            raise ValueError(
                f'mask {tuple(mask.shape)} is not {tuple(shape)}, (images, '
                'patches along the height, patches along the width): give '
                'SimMIMMaskGenerator the input_size and model_patch_size of '
                'the images and of this model'
            )

    def get_layer_depth(self, param_name: str, prefix: str = ''):
        """As ``DeiT``'s; the mask token belongs to the stem."""
        if param_name == f'{prefix}mask_token':
            return 0, self.num_layers + 2
        return super().get_layer_depth(param_name, prefix)
