"""Conversion of checkpoints for other libraries."""

import json
import os
import os.path as osp
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmengine.runner import CheckpointLoader

from ..checkpoints.atomic import write_whole
from ..checkpoints.contents import check_weights, counted, weights_of
from ..checkpoints.folding import fold_layer_scale
from ..checkpoints.formats import FORMATS
from ..checkpoints.names import Weights, from_mmpretrain, to_mmpretrain
from ..checkpoints.reading import DIGEST, digest
from ..checkpoints.recorded import architecture, classes_of, config_of, meta_of, section
from ..messages import some
from ..models import DeiT, DeiTIII
from ..models.recorded import num_classes_of_weights, set_num_classes
from .configs import named_config
from .convert_files import check_target, mmpretrain_file, safetensors, saved, timm_file, write_folder
from .convert_students import Student, converted, fused, read_student, without_model
from .transformers_config import PROCESSOR, model_config, processor_config


@dataclass
class Source:
    """A checkpoint that was read.

    Args:
        name (str): Where it comes from.
        weights (dict): By mmpretrain's names.
        config (dict): Of the run that saved it, as far as it records one.
        architecture (dict): See :func:`architecture`.
        classes (list[str]): Their names, or [].
        num_heads (int, optional): Attention heads, if the user said so.
    """

    name: str
    weights: Weights
    config: dict
    architecture: dict
    classes: list[str]
    num_heads: int | None = None


def convert(
    source: str,
    target: str,
    to: str,
    ema: bool = False,
    num_heads: int | None = None,
    force: bool = False,
    fuse_heads: bool = False,
    config: str | None = None,
):
    """Write a checkpoint as another library loads it.

    Args:
        source (str): A DeiT checkpoint of any library: a file, an address, or
            a folder of transformers. Or of a student of another family; see
            :func:`read_student`.
        target (str): What to write: a file, for transformers a folder. A file
            for timm whose name ends with ``.safetensors`` is one.
        to (str): ``'facebook'``, ``'timm'``, ``'transformers'`` or
            ``'mmpretrain'``.
        ema (bool): Whether to take the moving average of a file of timm or
            facebookresearch/deit that holds both. (mmengine's checkpoints
            have it where the weights are.) Defaults to False.
        num_heads (int, optional): Attention heads, which transformers'
            ``config.json`` needs where neither the checkpoint nor the width
            (192, 384, 768; of a DeiT III also 512, 1024, 1280) tells.
        force (bool): Whether to replace what is there. Defaults to False.
        fuse_heads (bool): Of a student that is no DeiT, write one head that
            gives the mean of both: see :func:`fuse_heads`. Defaults to False.
        config (str, optional): The name of a variant, or a config file, of a
            checkpoint that does not record its own. Defaults to None.

    Raises:
        FileExistsError: If ``target`` exists and is not to be replaced, or is
            a folder with other files in it.
        ValueError: If the source is neither, or not one that the target library
            can hold.
    """
    if to not in FORMATS:
        raise ValueError(f'--to {to!r} is unknown: choose one of {FORMATS}')
    if target.endswith(os.sep) and to != 'transformers':
        raise ValueError(f'--to {to} writes a file, but {target} is a folder')
    target = osp.realpath(osp.expanduser(target))
    check_target(target, to, force)
    read = read_source(source, to, ema, num_heads, fuse_heads, config)
    content = converted(read, to, target) if isinstance(read, Student) else _converted(read, to, target)
    if isinstance(content, bytes):
        write_whole(target, content)
    else:
        write_folder(target, content)


def read_source(
    source: str,
    to: str = 'mmpretrain',
    ema: bool = False,
    num_heads: int | None = None,
    fuse_heads: bool = False,
    config: str | None = None,
) -> Source | Student:
    """Read a whole DeiT of any library, or a student of another family.

    Args:
        source (str): As for :func:`convert`, like the others.

    Raises:
        ValueError: If it is neither, or not all of one.
    """
    checkpoint = CheckpointLoader.load_checkpoint(source, 'cpu')
    given, meta = without_model(weights_of(checkpoint, source, ema)), meta_of(checkpoint)
    recorded = _config_by_name(config, given) if config else config_of(meta)
    student = read_student(meta, recorded, given, source, to)
    if fuse_heads:
        return fused(student, given, source, to)
    return _read(meta, recorded, given, source, num_heads) if student is None else student


def _config_by_name(name: str, weights: Weights) -> dict:
    """Of as many classes as the weights have."""
    config = named_config(name).to_dict()
    if number := num_classes_of_weights(config['model'], weights):
        set_num_classes(config['model'], number)
    return config


def _read(meta: Mapping, config: dict, given: Weights, source: str, num_heads: int | None) -> Source:
    given = {k: v for k, v in given.items() if not k.startswith('data_preprocessor.')}
    check_weights(given, source, counted(given))
    found, weights = to_mmpretrain(given)
    if found is None:
        raise ValueError(
            f'{source} is of no DeiT that is known here, of no LeViT or EfficientFormer, and does not record '
            'a model of timm, as the checkpoint of a training does (--config names one): there is no place '
            f'for {some(weights)}'
        )
    found = _check_complete(weights, config, source)
    return Source(source, weights, config, found, classes_of(meta, weights), num_heads)


def _converted(read: Source, to: str, target: str) -> bytes | dict[str, bytes]:
    """The bytes of a file, or of the files of a folder."""
    if to in ('facebook', 'timm'):
        for name in [n for n in read.weights if n.startswith('neck.') or 'mask_token' in n]:
            del read.weights[name]  # of the pre-training alone
    if to != 'mmpretrain':
        _check_heads(read.weights, read.config, to)
    is_deit3 = not read.architecture['tokens_have_positions']
    weights = fold_layer_scale(read.weights) if is_deit3 and to == 'transformers' else read.weights
    renamed = from_mmpretrain(weights, to)
    renamed = {name: value.contiguous().clone() for name, value in renamed.items()}
    if to == 'facebook':
        return saved({'model': renamed, DIGEST: digest(renamed)})
    if to == 'timm':
        return timm_file(renamed, target)
    if to == 'mmpretrain':
        return mmpretrain_file(renamed, read.classes)
    config = model_config(read)
    return {
        'model.safetensors': safetensors(renamed),
        'config.json': json.dumps(config, indent=2).encode(),
        PROCESSOR: json.dumps(processor_config(config, read), indent=2).encode(),
    }


def _check_complete(weights: dict, config: dict, source: str) -> dict:
    """The architecture, after a comparison with the names and shapes of a model of it."""
    try:
        found = architecture(weights, config)
        expected = _expected(found)
    except Exception as error:  # shapes that are of no such model
        raise ValueError(f'{source} is not a whole DeiT: {error}') from error
    given = {name: value.shape for name, value in weights.items()}
    optional = {k for k in expected if k.startswith(('head.', 'neck.')) or k == 'backbone.mask_token'}
    names = (expected.keys() - optional) | given.keys()
    if wrong := sorted(name for name in names if expected.get(name) != given.get(name)):
        raise ValueError(
            f'{source} is not a whole DeiT: missing, unknown or of another shape than the rest are '
            f'{some(wrong)}'
        )
    return found


def _expected(found: dict) -> dict[str, torch.Size]:
    """The shapes of a DeiT of an architecture, with both heads and the parts of masked-image modelling."""
    width, classes, patch = found['embed_dims'], found['num_classes'], found['patch_size']
    backbone = DeiT if found['tokens_have_positions'] else DeiTIII
    with torch.device('meta'):
        model = backbone(
            arch=dict(
                num_heads=1,
                **{key: found[key] for key in ('embed_dims', 'num_layers', 'feedforward_channels')},
            ),
            distilled=found['distilled'],
            # One row; only the number of patches matters here.
            img_size=(patch[0], patch[1] * found['num_patches']),
            patch_size=patch,
            in_channels=found['in_channels'],
            qkv_bias=found['qkv_bias'],
            layer_scale_init_value=float(found['layer_scale']),
        )
    shapes = {'backbone.' + name: value.shape for name, value in model.state_dict().items()}
    shapes['backbone.mask_token'] = torch.Size((1, 1, width))
    for head in ('head', 'head_dist') if classes else ():
        shapes[f'head.layers.{head}.weight'] = torch.Size((classes, width))
        shapes[f'head.layers.{head}.bias'] = torch.Size((classes,))
    pixels = patch[0] * patch[1] * found['in_channels']
    shapes['neck.decoder.0.weight'] = torch.Size((pixels, width, 1, 1))
    shapes['neck.decoder.0.bias'] = torch.Size((pixels,))
    return shapes


def _check_heads(weights: dict, recorded: dict, to: str):
    distilled = 'backbone.dist_token' in weights
    heads = [h for h in ('head', 'head_dist') if f'head.layers.{h}.weight' in weights]
    if section(recorded, 'model', 'neck').get('token') == 'dist':
        raise ValueError(
            f'The one head of this model is on the distillation token; {to} reads the class token'
        )
    if distilled and len(heads) == 1 and to != 'transformers':
        raise ValueError(
            f'A distilled model of {to} has two heads, but this one only '
            f'{heads[0]}; transformers and mmpretrain can hold it'
        )
