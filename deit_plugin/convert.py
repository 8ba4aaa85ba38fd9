"""Writing a DeiT for other libraries."""
import ast
import json
import math
import os
import os.path as osp
import tempfile
from typing import Callable, Dict, List, Optional

import torch
from mmengine.runner import CheckpointLoader
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from safetensors.torch import save_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from .checkpoint import AVERAGES, config_beside
from .formats import FORMATS, from_mmpretrain, some, to_mmpretrain
from .models import DeiT

PROCESSOR = 'preprocessor_config.json'
_FOLDER = {'config.json', 'model.safetensors', PROCESSOR}


def convert(source: str,
            target: str,
            to: str,
            ema: bool = False,
            num_heads: Optional[int] = None,
            force: bool = False):
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

    Raises:
        FileExistsError: If ``target`` exists and is not to be replaced, or is
            a folder with other files in it.
        ValueError: If the source is no DeiT, or none that the target library
            can hold.
    """
    if to not in FORMATS:
        raise ValueError(f'--to {to!r} is unknown: choose one of {FORMATS}')
    if target.endswith(os.sep) and to != 'transformers':
        raise ValueError(f'--to {to} writes a file, but {target} is a folder')
    target = osp.realpath(osp.expanduser(target))
    _check_target(target, to, force)
    checkpoint = CheckpointLoader.load_checkpoint(source, 'cpu')
    weights = _weights(checkpoint, source, ema)
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    recorded = _recorded_config(meta.get('cfg', ''))
    _check_complete(weights, source)
    if to != 'transformers' and to != 'mmpretrain':
        for name in [n for n in weights
                     if n.startswith('neck.') or 'mask_token' in n]:
            del weights[name]  # of the pre-training alone
    if to != 'mmpretrain':
        _check_heads(weights, recorded, to)
    renamed = {
        name: value.contiguous().clone()
        for name, value in from_mmpretrain(weights, to).items()
    }

    classes = _classes(meta, weights)
    if to == 'transformers':
        config = _transformers_config(weights, source, recorded, num_heads,
                                      classes)
        processor = _processor_config(config, source, recorded)

        def write(path):
            os.mkdir(path)
            _save_safetensors(renamed, osp.join(path, 'model.safetensors'))
            for name, content in (('config.json', config), (PROCESSOR,
                                                            processor)):
                with open(osp.join(path, name), 'w') as file:
                    json.dump(content, file, indent=2)
    elif to == 'timm' and target.endswith('.safetensors'):

        def write(path):
            _save_safetensors(renamed, path)
    else:
        content = dict(
            facebook=dict(model=renamed),
            timm=renamed,
            mmpretrain=dict(
                state_dict=renamed,
                meta=dict(
                    dataset_meta=dict(classes=classes)) if classes else {}))

        def write(path):
            torch.save(content[to], path)

    _write_whole(target, write)


def _save_safetensors(weights: dict, path: str):
    save_file(weights, path, dict(format='pt'))
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(path, 0o666 & ~umask)  # else it is the owner's alone


def _check_target(target: str, to: str, force: bool):
    if not osp.lexists(target):
        return
    if not force:
        raise FileExistsError(f'{target} is there already: choose another '
                              'name, or replace it with --force')
    if osp.isdir(target) != (to == 'transformers'):
        raise FileExistsError(
            f'{target} is {"a" if osp.isdir(target) else "no"} folder, and '
            f'--to {to} writes a '
            f'{"folder" if to == "transformers" else "file"}: choose another '
            'name')
    if osp.isdir(target) and (other := set(os.listdir(target)) - _FOLDER):
        raise FileExistsError(
            f'{target} is not replaced, for it holds other files too: '
            f'{some(sorted(other))}')


def _write_whole(target: str, write: Callable[[str], None]):
    """What a kill leaves is a folder ``.tmp`` beside the target; it may hold
    the folder that was to be replaced."""
    parent, name = osp.split(osp.abspath(target))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory('.tmp', name, parent) as scratch:
        new, old = osp.join(scratch, 'new'), osp.join(scratch, 'old')
        write(new)
        if osp.isdir(target):  # os.replace takes no folder with files
            os.rename(target, old)
        try:
            os.replace(new, target)
        except OSError:
            if osp.isdir(old):
                os.rename(old, target)
            raise


def _weights(checkpoint: dict, source: str, ema: bool) -> dict:
    weights = checkpoint.get('state_dict', checkpoint)
    if ema:
        held = [key for key in AVERAGES if key in checkpoint]
        if not held:
            raise ValueError(
                f'{source} holds no {" or ".join(AVERAGES)}: leave out --ema')
        weights = checkpoint[held[0]]
    found, weights = to_mmpretrain(weights)
    if found is None:
        raise ValueError(
            f'{source} is of no DeiT that is known here: there is no place '
            f'for {some(weights)}')
    return {
        name: value
        for name, value in weights.items()
        if not name.startswith('data_preprocessor.')
    }


def architecture(weights: Dict[str, torch.Tensor]) -> dict:
    """What the shapes of a DeiT's weights tell.

    Args:
        weights (dict): Weights by mmpretrain's names.

    Returns:
        dict: ``embed_dims``, ``num_layers``, ``feedforward_channels``,
        ``patch_size`` (height, width), ``in_channels``, ``distilled``,
        ``num_patches``, ``qkv_bias`` and ``num_classes`` (None without a
        head).
    """
    patch = weights['backbone.patch_embed.projection.weight']
    positions = weights['backbone.pos_embed'].shape[1]
    distilled = 'backbone.dist_token' in weights
    head = weights.get('head.layers.head.weight')
    return dict(
        embed_dims=patch.shape[0],
        num_layers=sum(
            name.startswith('backbone.layers.') and name.endswith('ln1.weight')
            for name in weights),
        feedforward_channels=weights[
            'backbone.layers.0.ffn.layers.0.0.weight'].shape[0],
        patch_size=tuple(patch.shape[2:]),
        in_channels=patch.shape[1],
        distilled=distilled,
        num_patches=positions - (2 if distilled else 1),
        qkv_bias='backbone.layers.0.attn.qkv.bias' in weights,
        num_classes=None if head is None else head.shape[0])


def _check_complete(weights: dict, source: str):
    """Compare with the names and shapes of a model of that architecture."""
    try:
        found = architecture(weights)
    except (KeyError, IndexError) as error:
        raise ValueError(f'{source} is no whole DeiT: {error}') from error
    with torch.device('meta'):
        model = DeiT(
            arch=dict(
                num_heads=1, **{
                    key: found[key]
                    for key in ('embed_dims', 'num_layers',
                                'feedforward_channels')
                }),
            distilled=found['distilled'],
            # One row; only the number of patches matters here.
            img_size=(found['patch_size'][0],
                      found['patch_size'][1] * found['num_patches']),
            patch_size=found['patch_size'],
            in_channels=found['in_channels'],
            qkv_bias=found['qkv_bias'])
    own = {
        'backbone.' + name: value.shape
        for name, value in model.state_dict().items()
    }
    given = {
        name: value.shape
        for name, value in weights.items()
        if name.startswith('backbone.') and name != 'backbone.mask_token'
    }
    if wrong := sorted(k for k in own.keys() | given.keys()
                       if own.get(k) != given.get(k)):
        raise ValueError(f'{source} is no whole DeiT: missing, unknown or of '
                         f'another shape than the rest are {some(wrong)}')


def _check_heads(weights: dict, recorded: dict, to: str):
    distilled = 'backbone.dist_token' in weights
    heads = [h for h in ('head', 'head_dist')
             if f'head.layers.{h}.weight' in weights]
    neck = recorded.get('model', {}).get('neck') or {}
    if neck.get('token') == 'dist':
        raise ValueError(f'The one head of this model is on the distillation '
                         f'token; {to} reads the class token')
    if distilled and len(heads) == 1 and to != 'transformers':
        raise ValueError(
            f'A distilled model of {to} has two heads, but this one only '
            f'{heads[0]}; transformers and mmpretrain can hold it')


def _classes(meta: dict, weights: dict) -> List[str]:
    recorded = meta.get('dataset_meta')
    recorded = recorded if isinstance(recorded, dict) else {}
    classes = recorded.get('classes') or meta.get('CLASSES')
    if not isinstance(classes, (list, tuple)):
        classes = []
    head = weights.get('head.layers.head.weight')
    number = 0 if head is None else len(head)
    if not classes and number == len(IMAGENET_CATEGORIES):
        classes = IMAGENET_CATEGORIES
    return [str(c) for c in classes] if len(classes) == number else []


def _recorded_config(text: str) -> dict:
    """The config that mmengine stores as text, read without running it."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, TypeError, ValueError):
        return {}
    values = {}
    for node in body:
        if isinstance(node, ast.Assign):
            try:
                values[node.targets[0].id] = _value(node.value)
            except (AttributeError, ValueError):
                pass  # more than a literal
    return values


def _value(node: ast.expr):
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict':
        return {k.arg: _value(k.value) for k in node.keywords}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    return ast.literal_eval(node)


def _transformers_config(weights: dict, source: str, recorded: dict,
                         num_heads: Optional[int],
                         classes: List[str]) -> dict:
    found = architecture(weights)
    backbone = recorded.get('model', {}).get('backbone') or {}
    patch, width = found['patch_size'], found['embed_dims']
    if patch[0] != patch[1]:
        raise ValueError(f'transformers has square patches, not {patch}')
    beside = config_beside(source)
    if beside.get('hidden_act', 'gelu') != 'gelu':
        raise ValueError(f'{source} has the activation '
                         f'{beside["hidden_act"]!r}, a DeiT has gelu')
    side = math.isqrt(found['num_patches'])
    for size in (backbone.get('img_size'), beside.get('image_size'),
                 side * patch[0]):
        height, width_ = _pair(size) if size else (0, 0)
        if height // patch[0] * (width_ // patch[0]) == found['num_patches']:
            break
    else:
        raise ValueError(
            f'{source} has {found["num_patches"]} patch positions, which '
            'make no square, so the size of its images is unknown')
    kind = 'DeiT' if found['distilled'] else 'ViT'
    if 'neck.decoder.0.weight' in weights:
        task = 'ForMaskedImageModeling'
    elif 'head.layers.head_dist.weight' in weights:
        task = 'ForImageClassificationWithTeacher'
    else:
        task = 'Model' if found['num_classes'] is None \
            else 'ForImageClassification'
    config = dict(
        architectures=[kind + task],
        model_type=kind.lower(),
        hidden_size=width,
        num_hidden_layers=found['num_layers'],
        num_attention_heads=_num_heads(num_heads, backbone, width, source),
        intermediate_size=found['feedforward_channels'],
        hidden_act='gelu',
        hidden_dropout_prob=0.,
        attention_probs_dropout_prob=0.,
        initializer_range=.02,
        layer_norm_eps=1e-6,
        image_size=size,
        patch_size=patch[0],
        num_channels=found['in_channels'],
        qkv_bias=found['qkv_bias'])
    if 'neck.decoder.0.weight' in weights:
        pixels = weights['neck.decoder.0.weight'].shape[0]
        config['encoder_stride'] = math.isqrt(pixels // found['in_channels'])
    if found['num_classes'] is not None:
        names = classes or [f'LABEL_{i}' for i in range(found['num_classes'])]
        config['id2label'] = {str(i): name for i, name in enumerate(names)}
        config['label2id'] = {name: i for i, name in enumerate(names)}
    return config


def _num_heads(given: Optional[int], backbone: dict, width: int,
               source: str) -> int:
    arch = backbone.get('arch')
    known = [a['num_heads'] for a in DeiT.arch_zoo.values()
             if a['embed_dims'] == width]
    for number in (given, arch.get('num_heads') if isinstance(
            arch, dict) else None,
                   config_beside(source).get('num_attention_heads'), *known):
        if number is not None:
            if number < 1 or width % number:
                raise ValueError(f'{number} attention heads do not divide a '
                                 f'width of {width}: give --num-heads')
            return number
    raise ValueError(f'{source} does not tell the number of attention heads '
                     f'of a model of width {width}: give --num-heads')


def _processor_config(config: dict, source: str, recorded: dict) -> dict:
    source = osp.expanduser(source)
    folder = source if osp.isdir(source) else osp.dirname(source)
    if config_beside(source) and osp.isfile(osp.join(folder, PROCESSOR)):
        with open(osp.join(folder, PROCESSOR), encoding='utf-8') as file:
            return json.load(file)
    own = recorded.get('model', {}).get('data_preprocessor') or \
        recorded.get('data_preprocessor') or {}

    def levels(name, default):
        return [v / 255 for v in own[name]] if own.get(name) else list(default)

    return dict(
        image_processor_type='DeiTImageProcessor',
        **_geometry(config['image_size'], recorded),
        resample=3,  # bicubic
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=levels('mean', IMAGENET_DEFAULT_MEAN),
        image_std=levels('std', IMAGENET_DEFAULT_STD))


def _geometry(image_size, recorded: dict) -> dict:
    """As the run was evaluated, or else as the reference does it: 256 and
    224, 438 and 384."""
    height, width = _pair(image_size)
    size, crop = (int(height / .875), int(width / .875)), (height, width)
    loader = recorded.get('test_dataloader') or {}
    pipeline = loader.get('dataset', {}).get('pipeline')
    if pipeline:
        steps = {step.get('type'): step for step in pipeline}
        resize = steps.get('ResizeEdge') or steps.get('Resize') or {}
        size = _pair(resize['scale'])[::-1] if 'scale' in resize else None
        centre = steps.get('CenterCrop')
        crop = _pair(centre['crop_size']) if centre else None
    geometry = dict(
        do_resize=size is not None, do_center_crop=crop is not None)
    if size:
        geometry['size'] = dict(height=size[0], width=size[1])
    if crop:
        geometry['crop_size'] = dict(height=crop[0], width=crop[1])
    return geometry


def _pair(size) -> tuple:
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)
