"""Conversion of checkpoints for other libraries."""

import io
import json
import os
import os.path as osp
import re
import shutil
import tempfile
import uuid
from dataclasses import dataclass

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save

from ..checkpoints.atomic import write_whole
from ..checkpoints.contents import check_weights, weights_of
from ..checkpoints.folding import fold_layer_scale
from ..checkpoints.formats import FORMATS
from ..checkpoints.names import Weights, from_mmpretrain, to_mmpretrain
from ..checkpoints.reading import DIGEST, digest
from ..checkpoints.recorded import architecture, classes_of, config_of, meta_of, recorded_classes, section
from ..messages import some
from ..models import DeiT, DeiTIII
from .fuse_heads import fuse_heads as fuse
from .transformers_config import PROCESSOR, model_config, processor_config

_FOLDER = {'config.json', 'model.safetensors', PROCESSOR}


@dataclass
class Source:
    """A checkpoint that was read.

    Args:
        name (str): Where it comes from.
        weights (dict): By mmpretrain's names.
        config (dict): Of the run that saved it, as far as it records one.
        classes (list[str]): Their names, or [].
        num_heads (int, optional): Attention heads, if the user said so.
    """

    name: str
    weights: Weights
    config: dict
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
):
    """Write a checkpoint as another library loads it.

    Args:
        source (str): A DeiT checkpoint of any library: a file, an address, or
            a folder of transformers.
        target (str): What to write: a file, for transformers a folder. A file
            for timm whose name ends with ``.safetensors`` is one.
        to (str): ``'facebook'``, ``'timm'``, ``'transformers'`` or
            ``'mmpretrain'``.
        ema (bool): Whether to take the moving average of a file of timm or
            facebookresearch/deit that holds both. (mmengine's checkpoints
            have it where the weights are.) Defaults to False.
        num_heads (int, optional): Attention heads, which transformers'
            ``config.json`` needs where neither the checkpoint nor the width
            (192, 384, 768) tells.
        force (bool): Whether to replace what is there. Defaults to False.
        fuse_heads (bool): Of a student that is no DeiT, write one head that
            gives the mean of both: see :func:`fuse_heads`. ``to`` is then
            ``'mmpretrain'``, or ``'timm'`` of a timm model. Defaults to False.

    Raises:
        FileExistsError: If ``target`` exists and is not to be replaced, or is
            a folder with other files in it.
        ValueError: If the source is not a DeiT, or not one that the target library
            can hold.
    """
    if to not in WRITERS:
        raise ValueError(f'--to {to!r} is unknown: choose one of {FORMATS}')
    if target.endswith(os.sep) and to != 'transformers':
        raise ValueError(f'--to {to} writes a file, but {target} is a folder')
    target = osp.realpath(osp.expanduser(target))
    _check_target(target, to, force)
    if fuse_heads:
        write_whole(target, _fused(source, target, to, ema))
        return
    read = read_source(source, ema, num_heads)
    if to in ('facebook', 'timm'):
        for name in [n for n in read.weights if n.startswith('neck.') or 'mask_token' in n]:
            del read.weights[name]  # of the pre-training alone
    if to != 'mmpretrain':
        _check_heads(read.weights, read.config, to)
    weights = fold_layer_scale(read.weights) if to == 'transformers' else read.weights
    renamed = from_mmpretrain(weights, to)
    renamed = {name: value.contiguous().clone() for name, value in renamed.items()}
    content = WRITERS[to](read, renamed, target)
    if isinstance(content, bytes):
        write_whole(target, content)
    else:
        _write_folder(target, content)


def read_source(source: str, ema: bool = False, num_heads: int | None = None) -> Source:
    """Read a whole DeiT of any library.

    Args:
        source (str): As for :func:`convert`, like the others.

    Raises:
        ValueError: If it is none, or not all of one.
    """
    checkpoint = CheckpointLoader.load_checkpoint(source, 'cpu')
    given = weights_of(checkpoint, source, ema)
    check_weights({k: v for k, v in given.items() if not k.startswith('data_preprocessor.')}, source)
    found, weights = to_mmpretrain(given)
    if found is None:
        raise ValueError(f'{source} is of no DeiT that is known here: there is no place for {some(weights)}')
    weights = {k: v for k, v in weights.items() if not k.startswith('data_preprocessor.')}
    _check_complete(weights, source)
    meta = meta_of(checkpoint)
    return Source(source, weights, config_of(meta), classes_of(meta, weights), num_heads)


def _fused(source: str, target: str, to: str, ema: bool) -> bytes:
    checkpoint = CheckpointLoader.load_checkpoint(source, 'cpu')
    weights = weights_of(checkpoint, source, ema)
    integers = {name for name in weights if name.endswith(('num_batches_tracked', 'bias_idxs'))}
    check_weights(weights, source, integers)
    weights = {name: value.contiguous().clone() for name, value in fuse(weights, source).items()}
    of_mmpretrain = any(name.startswith('backbone.') for name in weights)
    if to not in ('timm', 'mmpretrain') or to == 'timm' and of_mmpretrain:
        raise ValueError(
            f'--to {to} --fuse-heads: {source} is a student of {"mmpretrain" if of_mmpretrain else "timm"}, '
            f'so --to {"mmpretrain" if of_mmpretrain else "timm, or mmpretrain"}'
        )
    if to == 'timm':
        weights = {name.removeprefix('model.'): value for name, value in weights.items()}
    meta = meta_of(checkpoint)
    number = next(len(v) for name, v in weights.items() if re.search(r'head\.(l\.|linear\.)?bias$', name))
    classes = recorded_classes(meta, number)
    return WRITERS[to](Source(source, weights, config_of(meta), classes), weights, target)


def _facebook(source: Source, weights: Weights, target: str) -> bytes:
    return _saved({'model': weights, DIGEST: digest(weights)})


def _timm(source: Source, weights: Weights, target: str) -> bytes:
    return _safetensors(weights) if target.endswith('.safetensors') else _saved(weights)


def _transformers(source: Source, weights: Weights, target: str) -> dict[str, bytes]:
    config = model_config(source)
    processor = processor_config(config, source)
    return {
        'model.safetensors': _safetensors(weights),
        'config.json': json.dumps(config, indent=2).encode(),
        PROCESSOR: json.dumps(processor, indent=2).encode(),
    }


def _mmpretrain(source: Source, weights: Weights, target: str) -> bytes:
    meta: dict = {DIGEST: digest(weights)}
    if source.classes:
        meta['dataset_meta'] = dict(classes=source.classes)
    return _saved(dict(state_dict=weights, meta=meta))


def _saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _safetensors(weights: Weights) -> bytes:
    return save(weights, {'format': 'pt', DIGEST: digest(weights)})


# By FORMATS: the bytes of a file, or of the files of a folder.
WRITERS = dict(facebook=_facebook, timm=_timm, transformers=_transformers, mmpretrain=_mmpretrain)


def _check_target(target: str, to: str, force: bool):
    if not osp.lexists(target):
        return
    if not force:
        raise FileExistsError(f'{target} is there already: choose another name, or replace it with --force')
    if osp.isdir(target) != (to == 'transformers'):
        raise FileExistsError(
            f'{target} is {"a" if osp.isdir(target) else "no"} folder, and '
            f'--to {to} writes a '
            f'{"folder" if to == "transformers" else "file"}: choose another '
            'name'
        )
    if osp.isdir(target):
        _check_folder(target)


def _write_folder(target: str, files: dict[str, bytes]):
    """A kill may leave a folder ``.tmp`` beside the target, or ``.old``, which is what was to be replaced."""
    parent, name = osp.split(osp.abspath(target))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory('.tmp', name, parent) as scratch:
        new, old = osp.join(scratch, 'new'), f'{target}.{uuid.uuid4().hex}.old'
        for file, content in files.items():
            write_whole(osp.join(new, file), content)
        if osp.isdir(target):  # os.replace takes no folder with files
            os.rename(target, old)
        try:
            if osp.isdir(old):  # nobody writes into it any more
                _check_folder(old)
            os.replace(new, target)
        except BaseException:
            if osp.isdir(old):
                os.rename(old, target)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _check_folder(folder: str):
    """Whether it holds no more than what is replaced."""
    other = [
        e.name for e in os.scandir(folder) if e.name not in _FOLDER or not e.is_file(follow_symlinks=False)
    ]
    if other:
        raise FileExistsError(
            f'{folder} is not replaced, for it holds other files too: {some(sorted(other))}'
        )


def _check_complete(weights: dict, source: str):
    """Compare with the names and shapes of a model of that architecture."""
    try:
        found = architecture(weights)
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
