"""State dicts of any library, fitted to a DeiT before torch or mmengine loads them."""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence

import torch
from mmengine.logging import print_log

from ..checkpoints.contents import check_weights, weights_of
from ..checkpoints.names import to_mmpretrain
from ..checkpoints.pos_embed import fit_pos_embed
from ..messages import some

_LEFT_OUT = dict(
    mask_token=' is left out: only MaskedDeiT has one',
    dist_token=' and its position are left out: this DeiT has no distillation token',
)
_PARTS = ('backbone', 'neck', 'head', 'data_preprocessor')  # of an ImageClassifier


def translate(deit, state_dict: MutableMapping, own: str, parts: Sequence[str] = _PARTS):
    """Give a state dict, in place, the names under which a model has a DeiT.

    Args:
        deit (DeiT): The backbone.
        state_dict (MutableMapping): Weights of the whole model.
        own (str): The backbone's prefix in it, such as ``'backbone.'``; ``''`` if the DeiT itself is
            the model.
        parts (Sequence[str]): The names of the model's parts.

    Raises:
        ValueError: If nothing in the state dict is of such a model, or if it is another library's DeiT
            but not all of this one.
    """
    if isinstance(state_dict.get('model'), Mapping):  # facebookresearch/deit's files
        _replace(state_dict, weights_of(state_dict))
    if own:  # the DeiT's own share is checked when it is loaded
        others = {k: v for k, v in state_dict.items() if isinstance(v, torch.Tensor) and k[: len(own)] != own}
        check_weights(others, 'The state dict', integers=others)
    if own and any(key.startswith(own) for key in state_dict):
        # mmcls 0.x keeps what its moving average replaced, as copies.
        for key in [k for k in state_dict if k.startswith(f'ema_{own[:-1]}_')]:
            del state_dict[key]
        return
    found, renamed = to_mmpretrain(state_dict)
    if found is None:
        parts = parts if own else deit.state_dict().keys()
        if state_dict and not any(key.split('.')[0] in parts or key in parts for key in state_dict):
            raise ValueError(
                'The state dict is of no DeiT that is known here (facebookresearch/deit, timm, '
                f'transformers, mmpretrain): there is no place for {some(state_dict)}'
            )
        return
    if found != 'mmpretrain':
        print_log(f"The weights have {found}'s names and are taken over", logger='current')
        _check_complete(deit, renamed, own)
    rest = {k: v for k, v in renamed.items() if not k.startswith('backbone.') and own}
    _replace(
        state_dict,
        {own + k[len('backbone.') :]: v for k, v in renamed.items() if k.startswith('backbone.')},
        rest,
    )


def _replace(state_dict: MutableMapping, *contents: Mapping):
    contents = [dict(content) for content in contents]  # they may be the state dict itself
    state_dict.clear()
    for content in contents:
        state_dict.update(content)


def _optional(own: Sequence[str]) -> set[str]:
    """Parameters that only some variants have: tokens, and the norm of ``avg_featmap``."""
    return {'dist_token', 'mask_token', *(key for key in own if key.startswith('ln2.'))}


def _check_complete(deit, weights: Mapping, prefix: str):
    given = {k[len('backbone.') :] for k in weights if k.startswith('backbone.')}
    own = deit.state_dict().keys()
    missing, unknown = own - given - _optional(own), given - own - _optional(own)
    _refuse(deit, {prefix + name for name in missing}, {prefix + name for name in unknown})


def refuse_missing(deit, incompatible_keys):
    """A load hook that refuses a state dict which does not fill a DeiT.

    Raises:
        ValueError: If a parameter is missing that is not of another variant.
    """
    own = deit.state_dict().keys()
    _refuse(deit, missing=set(incompatible_keys.missing_keys) & (own - _optional(own)))


def fit_state_dict(deit, state_dict: MutableMapping, prefix: str):
    """Fit the part of a state dict that is of a DeiT, in place.

    Position embeddings of another grid are resized, those of another number of extra tokens are
    completed or cut. What is not the same architecture is refused, where mmengine would only warn of it
    and run the model half filled. What is missing is left to torch and mmengine, as in mmpretrain's own
    backbones: a state dict may be of a part.

    Args:
        deit (DeiT): The backbone.
        state_dict (MutableMapping): Weights, those of the backbone under ``prefix``.
        prefix (str): Empty, or ends with a dot.

    Raises:
        ValueError: If a shape differs, if there are more layers, or if the position embeddings are of a
            grid whose sides are unknown.
    """
    own = {prefix + name: value for name, value in deit.state_dict().items()}
    check_weights({k: v for k, v in state_dict.items() if k in own}, 'The state dict')
    layers = {k for k in state_dict if k.startswith(f'{prefix}layers.')}
    _refuse(deit, unknown=layers - own.keys())
    _fit_positions(deit, state_dict, prefix)
    for token, left_out in _LEFT_OUT.items():
        if prefix + token in state_dict and prefix + token not in own:
            print_log(f'{prefix}{token}{left_out}', logger='current')
            del state_dict[prefix + token]
    differing = [
        f'{k} {tuple(state_dict[k].shape)}, here {tuple(value.shape)}'
        for k, value in own.items()
        if k in state_dict and state_dict[k].shape != value.shape
    ]
    if differing:
        raise ValueError(f'{_not_this(deit)}: the shapes differ in {some(differing)}')


def _fit_positions(deit, state_dict: MutableMapping, prefix: str):
    name, has_dist = f'{prefix}pos_embed', f'{prefix}dist_token' in state_dict
    given = state_dict.get(name)
    tokens = 2 if has_dist else 1
    is_deit = f'{prefix}layers.0.ln1.weight' in state_dict  # without LayerScale
    is_deit = is_deit and f'{prefix}layers.0.attn.gamma1.weight' not in state_dict
    if not deit.tokens_have_positions and not is_deit:
        tokens = 0
    if (
        given is None
        or given.ndim != 3
        or given.shape[::2] != (1, deit.embed_dims)
        or given.shape[1] <= tokens
    ):
        return  # the comparison of the shapes reports it
    if given.shape == deit.pos_embed.shape:
        return
    state_dict[name] = fit_pos_embed(
        given,
        tokens,
        deit.pos_embed,
        deit.num_position_tokens,
        deit.patch_resolution,
        deit.interpolate_mode,
        name,
    )
    if deit.distilled and not has_dist:
        print_log(
            f'{prefix}dist_token is not in the state dict of a plain DeiT: the token and its position '
            'keep their initial values',
            logger='current',
        )


def _refuse(deit, missing=(), unknown=()):
    if missing or unknown:
        raise ValueError(
            f'{_not_this(deit)}: of its {len(deit.state_dict())} keys it lacks '
            f'{some(sorted(missing))}; not known here are {some(sorted(unknown))}{_kind(missing, unknown)}'
        )


def _kind(missing: Iterable[str], unknown: Iterable[str]) -> str:
    """Which backbone has or lacks LayerScale as the state dict does."""
    if any('.attn.gamma1.' in name for name in unknown):
        return '. It has LayerScale, as a DeiT III: take the backbone `DeiTIII`'
    if any('.attn.gamma1.' in name for name in missing):
        return '. It has no LayerScale, as a DeiT: take the backbone `DeiT`'
    return ''


def _not_this(deit) -> str:
    return f'The state dict is not of this DeiT ({deit.num_layers} layers, width {deit.embed_dims})'
