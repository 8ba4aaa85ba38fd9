"""Parameter names of each library, to mmpretrain's and back.

All reading goes through the names of mmpretrain's classifiers, which are this
package's own: ``backbone.*``, ``head.layers.head``, ``head.layers.head_dist``
and, for masked-image modelling, ``neck.decoder.0``.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from mmengine.logging import print_log

from ..messages import some

Weights = dict[str, torch.Tensor]

# A star is the number of a layer. timm has facebookresearch/deit's names, but for LayerScale.
_LAYER = 'backbone.layers.*.'
_BLOCK = 'blocks.*.'
_TIMM = {
    'backbone.cls_token': 'cls_token',
    'backbone.dist_token': 'dist_token',
    'backbone.pos_embed': 'pos_embed',
    'backbone.patch_embed.projection': 'patch_embed.proj',
    _LAYER + 'ln1': _BLOCK + 'norm1',
    _LAYER + 'attn.qkv': _BLOCK + 'attn.qkv',
    _LAYER + 'attn.q': _BLOCK + 'attn.q',
    _LAYER + 'attn.k': _BLOCK + 'attn.k',
    _LAYER + 'attn.v': _BLOCK + 'attn.v',
    _LAYER + 'attn.proj': _BLOCK + 'attn.proj',
    _LAYER + 'attn.gamma1.weight': _BLOCK + 'ls1.gamma',
    _LAYER + 'ln2': _BLOCK + 'norm2',
    _LAYER + 'ffn.layers.0.0': _BLOCK + 'mlp.fc1',
    _LAYER + 'ffn.layers.1': _BLOCK + 'mlp.fc2',
    _LAYER + 'ffn.gamma2.weight': _BLOCK + 'ls2.gamma',
    'backbone.ln1': 'norm',
    'head.layers.head': 'head',
    'head.layers.head_dist': 'head_dist',
}
_FACEBOOK = {
    **_TIMM,
    _LAYER + 'attn.gamma1.weight': _BLOCK + 'gamma_1',
    _LAYER + 'ffn.gamma2.weight': _BLOCK + 'gamma_2',
}
# As in transformers' files, whose models' own names are those only up to
# version 4; the prefix `deit.` or, without a distillation token, `vit.`.
_BLOCK = 'encoder.layer.*.'
_TRANSFORMERS = {
    'backbone.cls_token': 'embeddings.cls_token',
    'backbone.dist_token': 'embeddings.distillation_token',
    'backbone.mask_token': 'embeddings.mask_token',
    'backbone.pos_embed': 'embeddings.position_embeddings',
    'backbone.patch_embed.projection': 'embeddings.patch_embeddings.projection',
    _LAYER + 'ln1': _BLOCK + 'layernorm_before',
    _LAYER + 'attn.q': _BLOCK + 'attention.attention.query',
    _LAYER + 'attn.k': _BLOCK + 'attention.attention.key',
    _LAYER + 'attn.v': _BLOCK + 'attention.attention.value',
    _LAYER + 'attn.proj': _BLOCK + 'attention.output.dense',
    _LAYER + 'ln2': _BLOCK + 'layernorm_after',
    _LAYER + 'ffn.layers.0.0': _BLOCK + 'intermediate.dense',
    _LAYER + 'ffn.layers.1': _BLOCK + 'output.dense',
    'backbone.ln1': 'layernorm',
    'head.layers.head': 'cls_classifier',
    'head.layers.head_dist': 'distillation_classifier',
    'neck.decoder.0': 'decoder.0',
}
# The weight by which each library's names are recognised.
_FIRST_NORM = {
    'mmpretrain': r'(backbone\.)?layers\.0\.ln1\.weight',
    'timm': r'blocks\.0\.norm1\.weight',
    'transformers': r'((deit|vit)\.)?(encoder\.layer|layers)\.0\.layernorm_before\.weight',
}
# What else they are called: of timm by facebookresearch/deit, of transformers' files by its models.
_SYNONYMS = dict(
    timm=[(r'\.gamma_([12])$', r'.ls\1.gamma')],
    transformers=[
        (r'^(deit|vit)\.', ''),
        (r'^layers\.', 'encoder.layer.'),
        (r'\.attention\.([qkv])_proj\.', r'.attention.attention.\1.'),
        (r'\.attention\.q\.', '.attention.query.'),
        (r'\.attention\.k\.', '.attention.key.'),
        (r'\.attention\.v\.', '.attention.value.'),
        (r'\.attention\.o_proj\.', '.attention.output.dense.'),
        (r'\.mlp\.fc1\.', '.intermediate.dense.'),
        (r'\.mlp\.fc2\.', '.output.dense.'),
        (r'^classifier\.', 'cls_classifier.'),
    ],
)


def to_mmpretrain(state_dict: Weights) -> tuple[str | None, Weights]:
    """Recognise whose names a state dict has, and give it mmpretrain's.

    Args:
        state_dict (dict): Weights by name. A prefix that a wrapper left (``module.``, ``_orig_mod.``)
            is taken off.

    Returns:
        tuple: ``'timm'`` (facebookresearch/deit's are the same), ``'transformers'``, ``'mmpretrain'``
        (a backbone alone included), or None for something else, and the renamed state dict; it is the
        one that came in where nothing is to be renamed.

    Raises:
        ValueError: If the weights are timm's or transformers', but not all of them are those of a
            DeiT, or if two have one name but for a prefix.
    """
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state_dict.items()):
        return None, state_dict
    names = {name: re.sub(r'^((module|_orig_mod)\.)+', '', name) for name in state_dict}
    if twice := {name for name, count in Counter(names.values()).items() if count > 1}:
        raise ValueError(f'There are two of {some(sorted(twice))}, with a prefix and without')
    found = _library(names.values())
    if found == 'mmpretrain':
        return found, _clean(state_dict, names)
    if found is None:
        return None, state_dict
    for old, name in names.items():
        for pattern, new in _SYNONYMS[found]:
            name = re.sub(pattern, new, name)
        names[old] = name
    return found, _place(state_dict, names, _TIMM if found == 'timm' else _TRANSFORMERS, found)


def _library(names: Iterable[str]) -> str | None:
    for name in names:
        for found, first in _FIRST_NORM.items():
            if re.fullmatch(first, name):
                return found
    return None


def _place(state_dict: Weights, names: dict[str, str], table: dict[str, str], library: str) -> Weights:
    """The state dict under mmpretrain's names, query, key and value joined."""
    table = {theirs: ours for ours, theirs in table.items()}
    renamed, origin, unplaced, left_out = {}, {}, [], []
    for old, value in state_dict.items():
        if (name := _rename(names[old], table)) and name not in renamed:
            renamed[name], origin[name] = value, old
        elif names[old].startswith('pooler.'):
            left_out.append(old)
        else:
            unplaced.append(old)
    unplaced += [origin[name] for name in _fuse_qkv(renamed)]
    if unplaced:
        raise ValueError(
            f"The names are {library}'s, but a DeiT has no place for {some(unplaced)}: is it another "
            'kind of vision transformer?'
        )
    if left_out:
        print_log(f'Left out, no DeiT here has a pooler: {left_out}', logger='current')
    return renamed


def from_mmpretrain(state_dict: Weights, target: str) -> Weights:
    """The weights of a classifier of ours under another library's names.

    Args:
        state_dict (dict): Weights under mmpretrain's names.
        target (str): One of ``formats.FORMATS``.

    Raises:
        ValueError: If there is no such name there; the decoder and the mask
            token of masked-image modelling only transformers has.
    """
    if target == 'mmpretrain':
        return dict(state_dict)
    if target == 'transformers':
        return _to_transformers(state_dict)
    table = _FACEBOOK if target == 'facebook' else _TIMM
    renamed, unplaced = {}, []
    for name, value in state_dict.items():
        if new := _rename(name, table):
            renamed[new] = value
        else:
            unplaced.append(name)
    if unplaced:
        raise ValueError(f'{target} has no place for {some(unplaced)}')
    return renamed


def _to_transformers(state_dict: dict) -> dict:
    prefix = 'deit.' if 'backbone.dist_token' in state_dict else 'vit.'
    both = any('.head_dist.' in name for name in state_dict)
    split = {}
    for name, value in state_dict.items():
        if '.attn.qkv.' in name:
            for part, third in zip('qkv', value.chunk(3)):
                split[name.replace('.qkv.', f'.{part}.')] = third.clone()
        else:
            split[name] = value
    renamed, unplaced = {}, []
    for name, value in split.items():
        new = _rename(name, _TRANSFORMERS)
        if new is None:
            unplaced.append(name)
        elif name.startswith('backbone.'):
            renamed[prefix + new] = value
        else:
            renamed[new if both else new.replace('cls_classifier', 'classifier')] = value
    if unplaced:
        raise ValueError(f'transformers has no place for {some(unplaced)}')
    return renamed


def _clean(state_dict: Weights, names: dict[str, str]) -> Weights:
    """mmpretrain's weights of a whole classifier, without the copies (``ema_backbone_...``) that mmcls
    0.x keeps of what its moving average replaced."""
    prefix = '' if any(name.startswith('backbone.') for name in names.values()) else 'backbone.'
    if not prefix and all(o == n and not n.startswith('ema_') for o, n in names.items()):
        return state_dict
    return {prefix + name: state_dict[old] for old, name in names.items() if not name.startswith('ema_')}


def _rename(name: str, table: dict[str, str]) -> str | None:
    number = re.search(r'(?<=\.)\d+(?=\.)', name)
    starred = name if number is None else name[: number.start()] + '*' + name[number.end() :]
    end = re.search(r'\.(weight|bias)$', name)
    for suffix in ('', end[0]) if end else ('',):
        for known in (name, starred):
            if new := table.get(known.removesuffix(suffix)):
                return new.replace('*', number[0] if number else '') + suffix
    return None


def _fuse_qkv(state_dict: dict) -> Sequence[str]:
    """Join query, key and value in place; returns those without the rest, or
    beside a joined one."""
    alone = []
    for first in [n for n in state_dict if re.search(r'\.attn\.[qkv]\.', n)]:
        if first not in state_dict:
            continue  # joined with an earlier one
        parts = [re.sub(r'(?<=\.attn\.)[qkv]', p, first) for p in 'qkv']
        present = [part for part in parts if part in state_dict]
        values = [state_dict.pop(part) for part in present]
        fused = parts[0].replace('.q.', '.qkv.')
        if len(present) == 3 and fused not in state_dict and len({value.shape for value in values}) == 1:
            state_dict[fused] = torch.cat([torch.atleast_1d(value) for value in values])
        else:
            alone += present
    return alone
