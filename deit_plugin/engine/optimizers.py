"""Few, large parameter groups, which fused optimizers can use."""

import torch
import torch.nn as nn
from mmengine.device import get_device
from mmengine.logging import MMLogger, print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.registry import OPTIMIZERS
from mmpretrain.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .agc import clip_adaptively
from .utils import into_the_file

_MIXED = ('cuda', 'npu', 'mlu', 'musa')  # as AmpOptimWrapper asserts
_FUSED = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with one group for each set of options.

    With ``paramwise_cfg`` mmengine makes each parameter a group, which the
    optimizer then steps through one at a time. Here all that have the same
    learning rate, weight decay and further options are one group, so there
    are two in the recipe of DeiT. Groups, and parameters in a group, are in
    the order in which the model has them.

    ``Adam``, ``AdamW`` and ``SGD`` are ``fused`` where all parameters are
    floating-point ones on CUDA or the CPU, unless the config says ``fused``,
    ``foreach`` or ``differentiable``.

    Where mmengine has no mixed precision, as on the CPU, an ``AmpOptimWrapper`` becomes an ``OptimWrapper``,
    and the log says so.

    ``clip_grad=dict(type='agc', clip_factor=0.01)`` clips adaptively: see :class:`AdaptiveClipping`.

    A checkpoint of an optimizer whose groups are mmengine's cannot be resumed
    with these, nor the other way round: torch raises a ``ValueError``. Its
    weights can be loaded.

    Args:
        optim_wrapper_cfg (dict): As for mmengine's constructor.
        paramwise_cfg (dict, optional): As for mmengine's constructor.
    """

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a model, and its wrapper.

        Raises:
            ValueError: If all parameters are frozen, or an option of ``clip_grad`` does not fit.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                'All parameters are frozen, so nothing would be learnt: set `model.backbone.frozen_stages`'
            )
        if self._can_fuse(model):
            self.optimizer_cfg = dict(self.optimizer_cfg, fused=True)
        if self.optim_wrapper_cfg.get('type') == 'AmpOptimWrapper' and get_device() not in _MIXED:
            print_log(f'Training in float32: there is no mixed precision on {get_device()}', logger='current')
            self.optim_wrapper_cfg = {
                k: v
                for k, v in self.optim_wrapper_cfg.items()
                if k not in ('dtype', 'loss_scale', 'use_fsdp')
            }
            self.optim_wrapper_cfg['type'] = 'OptimWrapper'
        clip = dict(self.optim_wrapper_cfg.get('clip_grad') or {})
        adaptive = clip.pop('type', None) == 'agc'
        if adaptive:
            self.optim_wrapper_cfg = dict(self.optim_wrapper_cfg, clip_grad=None)
        with into_the_file(MMLogger.get_current_instance()):  # a line for each option of a parameter
            wrapper = super().__call__(model)
        if adaptive:
            clip_adaptively(wrapper, model, clip)
        return wrapper

    def _can_fuse(self, model: nn.Module) -> bool:
        chosen = {'fused', 'foreach', 'differentiable'}
        if chosen & set(self.optimizer_cfg):
            return False
        optimizer = self.optimizer_cfg['type']
        if isinstance(optimizer, str):
            with OPTIMIZERS.switch_scope_and_registry(None) as registry:
                optimizer = registry.get(optimizer)
        return optimizer in _FUSED and all(
            p.device.type in ('cuda', 'cpu') and p.is_floating_point() for p in model.parameters()
        )

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs) -> None:
        """Add the parameters of a module; mmengine calls it for each."""
        super().add_params(params, module, prefix=prefix, **kwargs)
        if not prefix:  # the whole model
            params[:] = self._merge(params)

    def _merge(self, groups: list[dict]) -> list[dict]:
        defaults = dict(lr=self.base_lr, weight_decay=self.base_wd)
        merged = []  # pairs of options and parameters
        for group in groups:
            options = {k: v for k, v in defaults.items() if v is not None}
            # Both are in `lr` and `weight_decay` already.
            options.update((k, v) for k, v in group.items() if k not in ('params', 'lr_mult', 'decay_mult'))
            for known, params in merged:
                if known == options:
                    params.extend(group['params'])
                    break
            else:
                merged.append((options, list(group['params'])))
        return [dict(options, params=params) for options, params in merged]
