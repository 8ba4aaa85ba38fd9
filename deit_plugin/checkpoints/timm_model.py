"""Which model of timm weights are of."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import timm
import torch
from mmpretrain.models import EfficientFormer, LeViT

from ..messages import some
from .names import Weights
from .student_names import depth_of

# What mmpretrain's TimmClassifier, and ours, take for themselves.
_OTHERS = {'type', 'model_name', 'loss', 'prediction', 'data_preprocessor', 'with_cp', 'head'}
_NOT_OF_THE_FUNCTION = {'img_size', 'num_classes', 'drop_rate', 'drop_path_rate', 'distilled'}
_LEVITS = {f'levit_{arch}': dict(arch_of) for arch, arch_of in LeViT.arch_zoo.items()}


class TimmModel(NamedTuple):
    """The arguments of timm's ``create_model``: its ``name``, and all others."""

    name: str
    args: dict

    @property
    def is_levit(self) -> bool:
        """Whether it is a LeViT as published, of any width and depth."""
        known = self.name.partition('.')[0] in _LEVITS  # behind a dot the name of the weights
        return known and not self.args.keys() - _NOT_OF_THE_FUNCTION - _levit_args({}).keys()

    def check(self, weights: Weights, source: str):
        """Raise a ValueError if weights are not all of the model, by names and shapes."""
        with torch.device('meta'):
            built = timm.create_model(self.name, **self.args)
        check_whole(weights, built, source, f'{self.name} of timm')

    def with_one_head(self) -> 'TimmModel':
        """The same without its distillation head.

        Raises:
            ValueError: If timm has none.
        """
        for option in ('distillation', 'distilled'):
            one = TimmModel(self.name, {**self.args, option: False})
            try:
                with torch.device('meta'):
                    timm.create_model(one.name, **one.args)
            except TypeError:  # it has no such option
                continue
            return one
        raise ValueError(
            f'timm has no {self.name} with one head: `deit-plugin export --head mean` writes a program that '
            'gives the mean of both'
        )


def check_whole(weights: Weights, model: torch.nn.Module, source: str, name: str):
    """Raise a ValueError if weights are not all of a model, by names and shapes."""
    expected = {key: value.shape for key, value in model.state_dict().items()}
    given = {key: value.shape for key, value in weights.items()}
    if wrong := sorted(key for key in expected.keys() | given.keys() if expected.get(key) != given.get(key)):
        raise ValueError(
            f'{source} is not a whole {name}: missing, unknown or of another shape are {some(wrong)}'
        )


def recorded_timm_model(model: Mapping) -> TimmModel:
    """Of the config of a ``TimmClassifier`` or ``DistilledTimmClassifier``."""
    args = {name: value for name, value in model.items() if name not in _OTHERS}
    return TimmModel(model['model_name'], args)


def levit_model(weights: Weights, whole: bool = False) -> TimmModel:
    """The LeViT that weights by timm's names are of, by their shapes.

    Args:
        weights (dict): By timm's names.
        whole (bool): Whether to give all arguments of a model that timm knows by name, too.

    Raises:
        ValueError: If these are of no LeViT, or of one whose keys are of another width in each stage.
    """
    shape = {name: tuple(value.shape) for name, value in weights.items()}
    found: dict[str, list[int]] = dict(embed_dims=[], num_heads=[], depths=[], key_dims=[])
    sides: list[int] = []
    try:
        while (block := f'stages.{len(sides)}.blocks.0.attn') + '.qkv.linear.weight' in shape:
            (out, width), (_, values) = (shape[f'{block}.{n}.linear.weight'] for n in ('qkv', 'proj.ln'))
            heads, positions = shape[f'{block}.attention_biases']
            stage = (width, heads, depth_of(weights, len(sides)), (out - values) // (2 * heads))
            for values_of, value in zip(found.values(), stage):
                values_of.append(value)
            sides.append(round(positions**0.5))
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f'The shapes are of no LeViT of timm: {error}') from error
    if len(set(found['key_dims'])) != 1:
        raise ValueError(f'timm has a LeViT with one key_dim for all stages, not with {found["key_dims"]}')
    args: dict = dict(num_classes=_num_classes(weights), img_size=16 * sides[0])
    if 'head_dist.linear.weight' not in weights:
        args['distilled'] = False
    name = next((name for name, known in _LEVITS.items() if known == found), None)
    return TimmModel(name or 'levit_128s', args if name and not whole else {**args, **_levit_args(found)})


def _levit_args(arch: Mapping) -> dict:
    """timm's names of what mmpretrain calls the architecture."""
    names = dict(embed_dim='embed_dims', num_heads='num_heads', depth='depths')
    args = {name: list(arch.get(theirs, ())) for name, theirs in names.items()}
    return dict(args, key_dim=(arch.get('key_dims') or [0])[0])


def efficientformer_model(weights: Weights) -> TimmModel:
    """The EfficientFormer that weights by timm's names are of, by their shapes.

    Raises:
        ValueError: If it has one head.
    """
    if 'head_dist.weight' not in weights:
        raise ValueError('timm has no EfficientFormer with one head: only --to mmpretrain, with its config')
    widths = [len(weights[f'{place}.bias']) for place in _norms(weights)]
    vits = sum(name.endswith('token_mixer.qkv.weight') for name in weights)
    blocks = [depth_of(weights, stage) for stage in range(len(widths))]
    blocks[-1] -= bool(vits)  # one of them only flattens
    args = dict(num_classes=_num_classes(weights))
    for arch, known in EfficientFormer.arch_settings.items():
        if (known['embed_dims'], known['layers'], known['vit_num']) == (widths, blocks, vits):
            return TimmModel(f'efficientformer_{arch}', args)
    return TimmModel('efficientformer_l1', dict(args, embed_dims=widths, depths=blocks, num_vit=vits))


def _norms(weights: Weights) -> list[str]:
    """The norm in front of each stage, which tells its width."""
    found = (re.match(r'(stages\.\d+\.downsample\.norm)\.weight$', name) for name in weights)
    return ['stem.norm2', *sorted(match[1] for match in found if match)]


def _num_classes(weights: Weights) -> int:
    return next((len(v) for n, v in weights.items() if re.match(r'head\.(linear\.)?weight$', n)), 0)
