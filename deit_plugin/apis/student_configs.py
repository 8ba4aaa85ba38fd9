"""transformers' ``config.json`` and ``preprocessor_config.json`` of students that are no DeiTs."""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import timm
from mmengine.logging import print_log

from ..checkpoints.names import Weights
from ..checkpoints.recorded import section
from ..checkpoints.timm_model import TimmModel, levit_model
from .transformers_config import normalisation

_INTERPOLATIONS = dict(nearest=0, lanczos=1, bilinear=2, bicubic=3)  # of Pillow


class Preparation(NamedTuple):
    """How images are prepared: the shorter side resized to ``resize`` pixels, the square ``crop`` cut out of
    the centre, then normalised by ``mean`` and ``std`` of pixels in [0, 1]."""

    resize: int
    crop: int
    interpolation: str
    mean: Sequence[float]
    std: Sequence[float]


def preparation_of(recorded: dict, model: TimmModel) -> Preparation:
    """As the run that is recorded was evaluated, or else as timm does it with that model.

    Args:
        recorded (dict): The config of the run, or {}.
        model (TimmModel): Whose images they are.
    """
    own = timm.get_pretrained_cfg(model.name)
    pipeline = section(recorded, 'test_dataloader', 'dataset').get('pipeline')
    steps = (
        {str(s.get('type')): s for s in pipeline if isinstance(s, dict)} if isinstance(pipeline, list) else {}
    )
    resize, crop = steps.get('ResizeEdge', {}), steps.get('CenterCrop', {}).get('crop_size')
    if type(crop) is int and type(resize.get('scale')) is int and resize['scale'] >= crop > 0:
        interpolation = resize.get('interpolation', 'bilinear')
        return Preparation(resize['scale'], crop, interpolation, *normalisation(recorded).values())
    if pipeline:
        print_log(
            'The test pipeline of the training is no ResizeEdge and CenterCrop: what is written is the '
            f'preparation of images that timm has for {model.name}',
            logger='current',
            level=logging.WARNING,
        )
    crop = model.args.get('img_size') or own.input_size[-1]
    crop = crop if isinstance(crop, int) else crop[0]
    mean, std = normalisation(recorded).values() if recorded else (own.mean, own.std)
    return Preparation(math.floor(crop / own.crop_pct), crop, own.interpolation, list(mean), list(std))


def levit_config(weights: Weights, classes: Sequence[str]) -> dict:
    """Of ``LevitForImageClassificationWithTeacher``, or of one head.

    Args:
        weights (dict): Of a LeViT of three stages, by timm's names.
        classes (Sequence[str]): Their names.
    """
    args = levit_model(weights, whole=True).args
    taught = 'WithTeacher' if 'head_dist.linear.weight' in weights else ''
    return dict(
        architectures=[f'LevitForImageClassification{taught}'],
        model_type='levit',
        image_size=args['img_size'],
        num_channels=weights['stem.conv1.linear.weight'].shape[1],
        hidden_sizes=args['embed_dim'],
        num_attention_heads=args['num_heads'],
        depths=args['depth'],
        key_dim=[args['key_dim']] * len(args['depth']),
        id2label={str(i): name for i, name in enumerate(classes)},
        label2id={name: i for i, name in enumerate(classes)},
    )


def levit_processor(images: Preparation) -> dict:
    """``LevitImageProcessor`` knows one ratio of resize and crop alone; BiT's takes both."""
    return dict(
        image_processor_type='BitImageProcessor',
        do_resize=True,
        size=dict(shortest_edge=images.resize),
        resample=_INTERPOLATIONS.get(images.interpolation, 3),
        do_center_crop=True,
        crop_size=dict(height=images.crop, width=images.crop),
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=list(images.mean),
        image_std=list(images.std),
        do_convert_rgb=True,
    )


def wrapper_config(model: TimmModel, images: Preparation, classes: Sequence[str]) -> dict:
    """Of ``TimmWrapperForImageClassification``, by which transformers runs any model of timm.

    Args:
        model (TimmModel): Which.
        images (Preparation): Of its images.
        classes (Sequence[str]): Their names.
    """
    return dict(
        architectures=['TimmWrapperForImageClassification'],
        model_type='timm_wrapper',
        architecture=model.name,
        model_args={name: value for name, value in model.args.items() if name != 'num_classes'},
        num_classes=len(classes),
        label_names=list(classes),
        pretrained_cfg=dict(
            input_size=[3, images.crop, images.crop],
            interpolation=images.interpolation,
            crop_pct=_crop_pct(images.crop, images.resize),
            crop_mode='center',
            mean=list(images.mean),
            std=list(images.std),
        ),
    )


def _crop_pct(crop: int, resize: int) -> float:
    """By which timm, which divides and rounds down, gets exactly that resize."""
    ratio = crop / resize
    return ratio if math.floor(crop / ratio) == resize else math.nextafter(ratio, 0)
