"""transformers' ``config.json`` and ``preprocessor_config.json`` of a DeiT."""

import math
import os.path as osp

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from ..checkpoints.names import Weights
from ..checkpoints.reading import config_beside
from ..checkpoints.recorded import section
from ..json_file import read_json
from ..models import DeiT, DeiTIII

PROCESSOR = 'preprocessor_config.json'


def model_config(source) -> dict:
    """transformers' ``config.json``.

    Args:
        source (Source): See ``convert``.

    Raises:
        ValueError: If transformers has no such model, or what it must know is recorded nowhere.
    """
    found = source.architecture
    patch = found['patch_size']
    if patch[0] != patch[1]:
        raise ValueError(f'transformers has square patches, not {patch}')
    beside = config_beside(source.name)
    if beside.get('hidden_act', 'gelu') != 'gelu':
        raise ValueError(f'{source.name} has the activation {beside["hidden_act"]!r}, a DeiT has gelu')
    kind = 'DeiT' if found['distilled'] else 'ViT'
    config = dict(
        architectures=[kind + _task(source.weights)],
        model_type=kind.lower(),
        hidden_size=found['embed_dims'],
        num_hidden_layers=found['num_layers'],
        num_attention_heads=_num_heads(source, found),
        intermediate_size=found['feedforward_channels'],
        hidden_act='gelu',
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.02,
        layer_norm_eps=1e-6,
        image_size=_image_size(source, found['num_patches'], patch[0]),
        patch_size=patch[0],
        num_channels=found['in_channels'],
        qkv_bias=found['qkv_bias'],
    )
    if 'neck.decoder.0.weight' in source.weights:
        pixels = source.weights['neck.decoder.0.weight'].shape[0]
        config['encoder_stride'] = math.isqrt(pixels // found['in_channels'])
    if found['num_classes'] is not None:
        names = source.classes or [f'LABEL_{i}' for i in range(found['num_classes'])]
        config['id2label'] = {str(i): name for i, name in enumerate(names)}
        config['label2id'] = {name: i for i, name in enumerate(names)}
    return config


def _task(weights: Weights) -> str:
    if 'neck.decoder.0.weight' in weights:
        return 'ForMaskedImageModeling'
    if 'head.layers.head_dist.weight' in weights:
        return 'ForImageClassificationWithTeacher'
    return 'ForImageClassification' if 'head.layers.head.weight' in weights else 'Model'


def _image_size(source, num_patches: int, patch: int):
    """The first of the recorded sizes, or a square, that has so many patches."""
    for size in (
        section(source.config, 'model', 'backbone').get('img_size'),
        config_beside(source.name).get('image_size'),
        math.isqrt(num_patches) * patch,
    ):
        sides = _pair(size)
        height, width = sides if len(sides) == 2 and all(type(s) is int for s in sides) else (0, 0)
        if min(height, width) > 0 and height // patch * (width // patch) == num_patches:
            return size
    raise ValueError(
        f'{source.name} has {num_patches} patch positions, which make no square, so the size of its '
        'images is unknown'
    )


def _num_heads(source, found: dict) -> int:
    width, zoo = found['embed_dims'], (DeiTIII if found['layer_scale'] else DeiT).arch_zoo
    arch = section(source.config, 'model', 'backbone').get('arch')
    for number in (
        source.num_heads,
        _count(arch.get('num_heads') if isinstance(arch, dict) else None),
        _count(config_beside(source.name).get('num_attention_heads')),
        *[a['num_heads'] for a in zoo.values() if a['embed_dims'] == width],
    ):
        if number is not None:
            if number < 1 or width % number:
                raise ValueError(
                    f'{number} attention heads do not divide a width of {width}: give --num-heads'
                )
            return number
    raise ValueError(
        f'{source.name} does not tell the number of attention heads of a model of width {width}: give '
        '--num-heads'
    )


def _count(value) -> int | None:
    """What is recorded, if it can be a number of pixels or heads."""
    return value if type(value) is int and 0 < value < 1 << 16 else None


def processor_config(config: dict, source) -> dict:
    """transformers' ``preprocessor_config.json``: the one beside the source, or as the run that saved
    it was evaluated, or else as the reference does it.

    Args:
        config (dict): Of :func:`model_config`.
        source (Source): See ``convert``.
    """
    path = osp.expanduser(source.name)
    path = osp.join(path if osp.isdir(path) else osp.dirname(path), PROCESSOR)
    if config_beside(source.name) and osp.isfile(path):
        return read_json(path)
    return dict(
        image_processor_type='DeiTImageProcessor',
        **_geometry(config['image_size'], source),
        resample=3,  # bicubic
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        **normalisation(source.config),
    )


def normalisation(recorded: dict) -> dict:
    """``image_mean`` and ``image_std``, of pixels in [0, 1], as the run that is recorded had them, or else
    ImageNet's."""
    own = section(recorded, 'model', 'data_preprocessor') or section(recorded, 'data_preprocessor')

    def levels(name, default):
        values = own.get(name)
        if isinstance(values, list) and values and all(type(v) in (int, float) for v in values):
            return [v / 255 for v in values]
        return list(default)

    return dict(
        image_mean=levels('mean', IMAGENET_DEFAULT_MEAN), image_std=levels('std', IMAGENET_DEFAULT_STD)
    )


def _geometry(image_size, source) -> dict:
    """As the run was evaluated, or else as the reference does it: 256 and 224, 438 and 384, of a DeiT III 224
    and 224.

    A DeiT's images are stretched, as by the processors of those that transformers has; no DeiT III is there.
    """
    height, width = _pair(image_size)
    is_deit3 = not source.architecture['tokens_have_positions']
    ratio = 1 if is_deit3 else 0.875
    size, crop = (int(height / ratio), int(width / ratio)), (height, width)
    keeps_shape = is_deit3 and height == width
    pipeline = section(source.config, 'test_dataloader', 'dataset').get('pipeline')
    if isinstance(pipeline, list) and pipeline:
        steps = {str(step.get('type')): step for step in pipeline if isinstance(step, dict)}
        edge = steps.get('ResizeEdge')
        size = _recorded(edge or steps.get('Resize'), 'scale')
        size = size and size[::-1]
        keeps_shape = is_deit3 and edge is not None and edge.get('edge', 'short') == 'short'
        crop = _recorded(steps.get('CenterCrop'), 'crop_size')
    geometry = dict(do_resize=size is not None, do_center_crop=crop is not None)
    if size:
        geometry['size'] = dict(shortest_edge=size[0]) if keeps_shape else dict(height=size[0], width=size[1])
    if crop:
        geometry['crop_size'] = dict(height=crop[0], width=crop[1])
    return geometry


def _recorded(step, name: str) -> tuple | None:
    """A size of a step of a pipeline, if there is such a step."""
    sides = _pair(step.get(name)) if step else ()
    return sides if len(sides) == 2 and None not in map(_count, sides) else None


def _pair(size) -> tuple:
    return tuple(size) if isinstance(size, (list, tuple)) else (size, size)
