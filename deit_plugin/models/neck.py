"""The neck that selects the class and distillation tokens."""

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS

Tokens = tuple[torch.Tensor, torch.Tensor]


@MODELS.register_module()
class DistillationTokenNeck(BaseModule):
    """Takes the class and the distillation token out of a backbone's tokens.

    The backbone hands on just these two (``out_type='cls_token'``) or all its tokens (``'raw'``). Only
    its last stage is used.

    Args:
        token (str): ``'both'`` hands on ``(cls, dist)``, for :class:`DeiTDualHead`. ``'cls'`` or
            ``'dist'`` hands on that one alone, for the classic fine-tuning without distillation under
            any mmpretrain head. Defaults to ``'both'``.
        num_extra_tokens (int, optional): How many tokens stand before the patches where the backbone
            hands on all; it must be 2. :class:`DistilledClassifier` reads it from its backbone.
            Defaults to None.

    Raises:
        ValueError: If the token is unknown, or there is no distillation token.
    """

    def __init__(self, token: str = 'both', num_extra_tokens: int | None = None):
        super().__init__()
        if token not in ('both', 'cls', 'dist'):
            raise ValueError(f"token={token!r} is unknown: choose 'both', 'cls' or 'dist'")
        self.token = token
        self.num_extra_tokens = num_extra_tokens

    def forward(self, feats: tuple) -> tuple[torch.Tensor, ...]:
        """Select the tokens.

        Args:
            feats (tuple): The stages of a backbone. The last one is a tensor of tokens (B, 2 + N, C) or
                a pair of tensors (B, C).

        Returns:
            tuple[torch.Tensor]: ``(cls, dist)``, ``(cls, )`` or ``(dist, )``, each (B, C).

        Raises:
            ValueError: If there is no distillation token.
        """
        cls, dist = self._split(feats[-1])
        return dict(both=(cls, dist), cls=(cls,), dist=(dist,))[self.token]

    def _split(self, tokens) -> Tokens:
        if isinstance(tokens, (tuple, list)) and len(tokens) == 2:
            return tuple(tokens)
        shape = tuple(getattr(tokens, 'shape', ()))
        if len(shape) != 3:
            raise ValueError(
                'DistillationTokenNeck got no distillation token, but '
                f'{shape or type(tokens).__name__} from the backbone, where tokens (B, 2 + N, C) or a '
                'pair (cls, dist) belong: set `distilled=True` in the backbone, or take the neck out of '
                'the config'
            )
        if self.num_extra_tokens != 2:
            raise ValueError(
                f'DistillationTokenNeck got all {shape[1]} tokens of a backbone, of which '
                f'num_extra_tokens={self.num_extra_tokens} stand before the patches: if these are a '
                'class and a distillation token, set `neck.num_extra_tokens=2`, or '
                "`backbone.out_type='cls_token'`"
            )
        return tokens[:, 0], tokens[:, 1]
