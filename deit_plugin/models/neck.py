"""From the tokens of a DeiT to what its heads take."""
import math
from typing import Tuple

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS

_MEND = ('set `distilled=True` in the backbone, or take the neck out of the '
         'config')


@MODELS.register_module()
class DistillationTokenNeck(BaseModule):
    """Takes the class and the distillation token out of a backbone's tokens.

    The backbone may hand on just these two (``out_type='cls_token'``) or all
    its tokens (``'raw'``). Only its last stage is used. All tokens of
    :class:`DeiT` say whether the distillation token is among them. Those of
    another backbone do not: if they are one more than a square number, they
    are taken for a class token and the patches of a square image, and
    refused.

    Args:
        token (str): ``'both'`` hands on ``(cls, dist)``, for
            :class:`DeiTDualHead`. ``'cls'`` or ``'dist'`` hands on that one
            alone, for the classic fine-tuning without distillation under any
            mmpretrain head. Defaults to ``'both'``.
    """

    def __init__(self, token: str = 'both'):
        super().__init__()
        if token not in ('both', 'cls', 'dist'):
            raise ValueError(
                f"token={token!r} is unknown: choose 'both', 'cls' or 'dist'")
        self.token = token

    def forward(self, feats: tuple) -> Tuple[torch.Tensor, ...]:
        """Select the tokens.

        Args:
            feats (tuple): The stages of a backbone. The last one is a tensor
                of tokens (B, 2 + N, C) or a pair of tensors (B, C).

        Returns:
            tuple[torch.Tensor]: ``(cls, dist)``, ``(cls, )`` or ``(dist, )``,
            each (B, C).

        Raises:
            ValueError: If there is no distillation token.
        """
        cls, dist = self._split(feats[-1])
        return dict(both=(cls, dist), cls=(cls, ), dist=(dist, ))[self.token]

    @staticmethod
    def _split(tokens) -> Tuple[torch.Tensor, torch.Tensor]:
        if isinstance(tokens, (tuple, list)) and len(tokens) == 2:
            return tuple(tokens)
        shape = getattr(tokens, 'shape', ())
        if len(shape) != 3:
            raise ValueError(
                'DistillationTokenNeck got no distillation token, but '
                f'{tuple(shape) or type(tokens).__name__} from the backbone, '
                'where tokens (B, 2 + N, C) or a pair (cls, dist) belong: '
                f'{_MEND}')
        side = math.isqrt(shape[1] - 1)
        extra = getattr(tokens, 'num_extra_tokens',
                        1 if side * side == shape[1] - 1 else 2)
        if extra < 2:
            raise ValueError(
                'DistillationTokenNeck got no distillation token: the '
                f'{shape[1]} tokens of the backbone are a class token and '
                f'{shape[1] - 1} patches. To mend it, {_MEND}; if a backbone '
                'other than DeiT has the token and the image is not square, '
                "let it hand it on by `out_type='cls_token'`")
        return tokens[:, 0], tokens[:, 1]
