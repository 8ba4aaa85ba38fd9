"""Parameter names of LeViT and EfficientFormer: mmpretrain's to timm's, and timm's LeViT to transformers'."""

import re

from ..messages import some
from .names import Weights

# The parts of a block of LeViT; the first that fits is taken.
_LEVIT_PARTS = {'proj.1.': 'proj.ln.', 'q.1.': 'q.ln.', 'linear1.': 'ln1.', 'linear2.': 'ln2.'}
_LEVIT_TRANSFORMERS = {
    'qkv.': 'queries_keys_values.',
    'kv.': 'keys_values.',
    'q.ln.': 'queries.',
    'proj.ln.': 'projection.',
    'ln1.': 'linear_up.',
    'ln2.': 'linear_down.',
}
_EFFICIENTFORMER = {
    r'backbone\.patch_embed\.0\.conv\.': 'stem.conv1.',
    r'backbone\.patch_embed\.0\.bn\.': 'stem.norm1.',
    r'backbone\.patch_embed\.1\.conv\.': 'stem.conv2.',
    r'backbone\.patch_embed\.1\.bn\.': 'stem.norm2.',
    r'backbone\.network\.(\d+)\.0\.conv\.': r'stages.\1.downsample.conv.',
    r'backbone\.network\.(\d+)\.0\.bn\.': r'stages.\1.downsample.norm.',
    r'backbone\.norm3\.': 'norm.',
    r'head\.head\.': 'head.',
    r'head\.dist_head\.': 'head_dist.',
}

OF_MMPRETRAIN = ('levit', 'deployed_levit', 'efficientformer')


def family_of(weights: Weights) -> str | None:
    """One of ``OF_MMPRETRAIN`` by mmpretrain's names, ``'timm_levit'`` by timm's, else None."""
    firsts = {
        'backbone.stages.0.0.block.qkv.linear.weight': 'levit',
        'backbone.stages.0.0.block.qkv.weight': 'deployed_levit',
        'backbone.network.0.0.mlp.fc1.weight': 'efficientformer',
        'stages.0.blocks.0.attn.qkv.linear.weight': 'timm_levit',
    }
    return next((family for first, family in firsts.items() if first in weights), None)


def student_to_timm(weights: Weights, source: str) -> Weights:
    """A LeViT or EfficientFormer of mmpretrain under timm's names.

    Args:
        weights (dict): By mmpretrain's names.
        source (str): Where it comes from, for messages.

    Raises:
        ValueError: If it is none of the two, or timm has no place for a weight.
    """
    family = family_of(weights)
    if family == 'deployed_levit':
        raise ValueError(
            f'{source} is a LeViT with `deploy=True`, and other libraries keep the norms that are merged '
            'there: convert the checkpoint of its training, or --to mmpretrain, with its config'
        )
    if family not in ('levit', 'efficientformer'):
        raise ValueError(
            f'{source} is no DeiT, LeViT or EfficientFormer of mmpretrain: there is no table of names for '
            f'{some(weights)}'
        )
    rename = _levit if family == 'levit' else _efficientformer
    # timm makes the indices of LeViT's biases by itself.
    kept = [n for n in weights if family != 'levit' or not n.endswith('attention_bias_idxs')]
    return _renamed(weights, {name: rename(name, weights) for name in kept}, 'timm')


def levit_to_transformers(weights: Weights) -> Weights:
    """timm's LeViT under the names of transformers' ``LevitForImageClassification(WithTeacher)``.

    Args:
        weights (dict): By timm's names.

    Raises:
        ValueError: If transformers has no place for a weight.
    """
    names = {
        name: _levit_transformers(name, weights) for name in weights if 'attention_bias_idxs' not in name
    }
    return _renamed(weights, names, 'transformers')


def depth_of(weights: Weights, stage: int) -> int:
    """The blocks in a stage of timm's LeViT or EfficientFormer, with what only reshapes between them."""
    numbers = [re.match(rf'stages\.{stage}\.blocks\.(\d+)\.', name) for name in weights]
    return max((int(found[1]) + 1 for found in numbers if found), default=0)


def _renamed(weights: Weights, names: dict[str, str | None], library: str) -> Weights:
    if unplaced := [name for name, new in names.items() if new is None]:
        raise ValueError(f'{library} has no place for {some(unplaced)}')
    return {str(new): weights[name] for name, new in names.items()}


def _levit(name: str, weights: Weights) -> str | None:
    if found := re.match(r'backbone\.patch_embed\.patch_embed\.(\d+)\.(conv|bn)\.', name):
        layer = 'linear' if found[2] == 'conv' else 'bn'
        return f'stem.conv{int(found[1]) // 2 + 1}.{layer}.{name[found.end() :]}'
    if found := re.match(r'head\.(head|head_dist)\.(?=(bn|linear)\.)', name):
        return f'{found[1]}.{name[found.end() :]}'
    found = re.match(r'backbone\.stages\.(\d+)\.(\d+)\.(block\.)?', name)
    if not found:
        return None
    stage, place = int(found[1]), int(found[2])
    rest = _part(name[found.end() :], _LEVIT_PARTS)
    if stage and place < 2:  # a stage begins with what makes it smaller
        return f'stages.{stage}.downsample.{("attn_downsample", "mlp")[place]}.{rest}'
    block, second = divmod(place - 2 * bool(stage), 2)
    return f'stages.{stage}.blocks.{block}.{("attn", "mlp")[second]}.{rest}'


def _levit_transformers(name: str, weights: Weights) -> str | None:
    if found := re.match(r'stem\.conv(\d)\.(linear|bn)\.', name):
        layer = 'convolution' if found[2] == 'linear' else 'batch_norm'
        return f'levit.patch_embeddings.embedding_layer_{found[1]}.{layer}.{name[found.end() :]}'
    if found := re.match(r'head(_dist)?\.', name):
        rest = name[found.end() :].replace('bn.', 'batch_norm.')
        return f'classifier{"_distill" if found[1] else ""}.{rest}'
    found = re.match(r'stages\.(\d+)\.(?:blocks\.(\d+)|downsample)\.(attn_downsample|attn|mlp)\.', name)
    if not found:
        return None
    stage, rest = int(found[1]), _part(name[found.end() :], _LEVIT_TRANSFORMERS)
    if found[2] is None:  # there a stage ends with it
        stage -= 1
    first = 2 * (depth_of(weights, stage) if found[2] is None else int(found[2]))
    module = '' if found[3] == 'attn_downsample' else 'module.'
    layer = f'levit.encoder.stages.{stage}.layers.{first + (found[3] == "mlp")}'
    return f'{layer}.{module}{rest.replace("bn.", "batch_norm.")}'


def _efficientformer(name: str, weights: Weights) -> str | None:
    for pattern, new in _EFFICIENTFORMER.items():
        if re.match(pattern, name):
            return re.sub(pattern, new, name)
    found = re.match(r'backbone\.network\.(\d+)\.(\d+)\.', name)
    if not found:
        return None
    smaller = f'backbone.network.{found[1]}.0.conv.weight' in weights
    rest = re.sub(r'^(ls\d)\.weight$', r'\1.gamma', name[found.end() :])
    return f'stages.{found[1]}.blocks.{int(found[2]) - smaller}.{rest}'


def _part(rest: str, table: dict[str, str]) -> str:
    first = next((old for old in table if rest.startswith(old)), '')
    return table.get(first, '') + rest[len(first) :]
