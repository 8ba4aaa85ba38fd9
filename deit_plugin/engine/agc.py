"""Adaptive gradient clipping in mmengine's optimizer wrappers."""

import inspect
from collections.abc import Iterable

import torch.nn as nn
from mmengine.optim import OptimWrapper
from timm.models import model_parameters
from timm.utils.agc import adaptive_clip_grad


class AdaptiveClipping:
    """timm's ``adaptive_clip_grad`` (arXiv 2102.06171) as the ``clip_func`` of an ``OptimWrapper``.

    The wrapper calls it when it steps, so once for all accumulated iterations, and in mixed precision after
    the gradients are unscaled.

    Args:
        model (nn.Module): Of which it is.
        clip_factor (float): The most that the norm of a gradient may be of the norm of its weights, each for
            a unit of the output. Above 0. Defaults to 0.01.
        eps (float): Norms of weights below it count as it. Defaults to 1e-3.
        norm_type (float): The norm. Defaults to 2.0.
        exclude_head (bool): Whether the model's last two parameters are left as they are: weight and bias of
            the last classifier, of two heads the distillation head alone. So does timm's training script;
            LeViT, EfficientFormer and RepViT clip all. Defaults to True.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        clip_factor: float = 0.01,
        eps: float = 1e-3,
        norm_type: float = 2.0,
        exclude_head: bool = True,
    ):
        for name, value in dict(clip_factor=clip_factor, eps=eps, norm_type=norm_type).items():
            if type(value) not in (int, float) or not value > 0:
                raise ValueError(f"clip_grad=dict(type='agc', {name}={value!r}) is no number above 0")
        self.options = dict(clip_factor=clip_factor, eps=eps, norm_type=norm_type)
        self.clipped = {id(p) for p in model_parameters(model, exclude_head)}

    def __call__(self, parameters: Iterable[nn.Parameter], **options):
        """Clip the gradients of those that are to be clipped."""
        adaptive_clip_grad([p for p in parameters if id(p) in self.clipped], **options)


def clip_adaptively(wrapper: OptimWrapper, model: nn.Module, options: dict):
    """Let a wrapper that clips nothing do so adaptively.

    Args:
        wrapper (OptimWrapper): Or an ``AmpOptimWrapper``.
        model (nn.Module): Whose parameters it has.
        options (dict): Of :class:`AdaptiveClipping`.

    Raises:
        ValueError: If an option is unknown or out of range.
    """
    known = list(inspect.signature(AdaptiveClipping).parameters)[1:]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"clip_grad=dict(type='agc') has no option {unknown}: choose from {known}")
    clipping = AdaptiveClipping(model, **options)
    # mmengine takes 'norm' and 'value' alone by name, and these from the wrapper.
    wrapper.clip_func, wrapper.clip_grad_kwargs = clipping, clipping.options
