"""Two classifiers on the same features, as one."""

import re

import torch

from ..checkpoints.names import Weights

_DIST = re.compile(r'(.*\.|^)(head_dist|dist_head)\.(?:linear\.|l\.)?weight$')
_LAYERS = ('', 'linear.', 'l.')  # of mmpretrain and timm, RepViT's the last
# Of BatchNorm1d before the classifiers of LeViT and RepViT: torch's own, which no argument of mmpretrain's
# or timm's models changes.
_EPS = 1e-5


def fuse_heads(weights: Weights, source: str) -> Weights:
    """The weights of a student with one head, whose logits are the mean of both heads' in evaluation.

    The norms before the classifiers of LeViT and RepViT are merged into the layer, and what is left of them
    does nothing.

    Args:
        weights (dict): By the names of mmpretrain or timm. timm has an EfficientFormer (V1) and a SwiftFormer
            with two heads alone, which do not load them.
        source (str): Where it comes from, for messages.

    Raises:
        ValueError: If there are no two heads, or they do not read the same features.
    """
    cls, dist = two_prefixes(weights, source)
    missing = [name for name in weights if name.startswith(dist) and cls + name[len(dist) :] not in weights]
    if missing:
        raise ValueError(f'{source} has no class head beside {missing[0]}')
    one, other = (_merged(weights, prefix) for prefix in (cls, dist))
    fused = {name: value for name, value in weights.items() if not name.startswith(dist)}
    place = next(cls + layer for layer in _LAYERS if cls + layer + 'weight' in weights)
    kind = weights[place + 'weight'].dtype
    for name, a, b in zip(('weight', 'bias'), one, other):
        if name == 'weight' or place + name in weights or cls + 'bn.weight' in weights:
            fused[place + name] = ((a + b) / 2).to(kind)
    norm = dict(weight=1.0, bias=0.0, running_mean=0.0, running_var=1 - _EPS)
    for name, value in norm.items():
        if cls + 'bn.' + name in weights:
            fused[cls + 'bn.' + name] = torch.full_like(weights[cls + 'bn.' + name], value)
    return fused


def two_prefixes(weights: Weights, source: str) -> tuple[str, str]:
    """How the names of class and distillation head begin. Arguments, errors: see :func:`fuse_heads`."""
    two = [n for n, v in weights.items() if n.endswith('cls_token') and v.ndim == 3 and v.shape[1] > 1]
    tokens = two or any(name.endswith('dist_token') for name in weights)  # PiT has both in one
    if tokens or any(name.startswith('heads_dist.') for name in weights):  # EfficientViM
        raise ValueError(
            f'The heads of {source} read {"two tokens" if tokens else "several stages"}, so no model with '
            'one head gives their mean: '
            '`deit-plugin export --head mean` writes a program that does'
        )
    found = next((match for name in weights if (match := _DIST.match(name))), None)
    if found is None:
        raise ValueError(
            f'{source} has one head, there is no head_dist or dist_head in it to fuse: leave --fuse-heads out'
        )
    return found[1] + 'head.', f'{found[1]}{found[2]}.'


def _merged(weights: Weights, prefix: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a classifier with the norm before it, in double precision."""
    part = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    part = {name: value.double() for name, value in part.items()}
    layer = next(layer for layer in _LAYERS if layer + 'weight' in part)
    weight = part[layer + 'weight']
    bias = part.get(layer + 'bias', weight.new_zeros(len(weight)))
    if 'bn.weight' not in part:
        return weight, bias
    scale = part['bn.weight'] / (part['bn.running_var'] + _EPS).sqrt()
    return weight * scale, bias + weight @ (part['bn.bias'] - part['bn.running_mean'] * scale)
