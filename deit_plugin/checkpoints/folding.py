"""A DeiT III as a vision transformer without LayerScale."""

import torch

from .names import Weights

# By the end of a LayerScale's name, the linear layer in front of it.
_SCALED = {'.attn.gamma1.weight': '.attn.proj', '.ffn.gamma2.weight': '.ffn.layers.1'}


def fold_layer_scale(weights: Weights) -> Weights:
    """The weights of a DeiT that gives what a DeiT III gives.

    LayerScale is multiplied into the linear layer in front of it, and the tokens get positions of zeros.
    To train on, it is another model.

    Args:
        weights (dict): Of a whole DeiT III, by mmpretrain's names.
    """
    tokens = 2 if 'backbone.dist_token' in weights else 1
    scales = [name for name in weights if name.endswith(tuple(_SCALED))]
    positions = weights['backbone.pos_embed']
    folded = {name: value for name, value in weights.items() if name not in scales}
    folded['backbone.pos_embed'] = torch.cat([torch.zeros_like(positions[:, :tokens]), positions], dim=1)
    for name in scales:
        end = next(end for end in _SCALED if name.endswith(end))
        layer = name.removesuffix(end) + _SCALED[end]
        folded[f'{layer}.weight'] = weights[name].unsqueeze(1) * weights[f'{layer}.weight']
        folded[f'{layer}.bias'] = weights[name] * weights[f'{layer}.bias']
    return folded
