"""Conversion of students that are no DeiTs."""

import inspect
import json
from collections.abc import Mapping
from typing import NamedTuple

import torch
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.models import EfficientFormer, LeViT

from ..checkpoints.contents import check_weights, counted
from ..checkpoints.names import Weights, to_mmpretrain
from ..checkpoints.recorded import recorded_classes, section
from ..checkpoints.student_names import OF_MMPRETRAIN, family_of, levit_to_transformers, student_to_timm
from ..checkpoints.timm_model import (
    TimmModel,
    check_whole,
    efficientformer_model,
    levit_model,
    recorded_timm_model,
)
from ..messages import shown
from ..models.recorded import build_classifier, num_classes_of_weights, recorded_model
from .convert_files import mmpretrain_file, safetensors, timm_file
from .fuse_heads import fuse_heads, two_prefixes
from .student_configs import levit_config, levit_processor, preparation_of, wrapper_config
from .transformers_config import PROCESSOR

# Of the backbones of mmpretrain, what timm's and transformers' models have as by default alone.
_FIXED = ('act_cfg', 'attn_ratio', 'hybrid_backbone', 'pool_size', 'use_layer_scale')


class Student(NamedTuple):
    """A student that was read.

    source (str): Where it comes from.
    weights (dict): By mmpretrain's names, or by timm's.
    model (TimmModel, optional): Which it is of timm. Weights that keep mmpretrain's names need none.
    of_mmpretrain (bool): Whether the names are mmpretrain's.
    config (dict): Of the run that saved it, as far as it is known.
    classes (list[str]): Their names, or [].
    """

    source: str
    weights: Weights
    model: TimmModel | None
    of_mmpretrain: bool
    config: dict
    classes: list[str]

    @property
    def by_timms_names(self) -> Weights:
        """The weights."""
        return student_to_timm(self.weights, self.source) if self.of_mmpretrain else self.weights


def without_model(weights: Weights) -> Weights:
    """Weights as timm calls them, if they are those of a classifier that has a model of timm in it."""
    names = [name for name in weights if not name.startswith('data_preprocessor.')]
    if not all(name.startswith('model.') for name in names):
        return weights
    return {name.removeprefix('model.'): weights[name] for name in names}


def read_student(meta: Mapping, config: dict, weights: Weights, source: str, to: str) -> Student | None:
    """A LeViT or EfficientFormer of mmpretrain, a LeViT of timm, or any model of timm that a config names.

    Args:
        meta (Mapping): Of the checkpoint; it may name the classes.
        config (dict): Of the run, recorded or named by the user, or {}.
        weights (dict): Of timm by timm's names.
        source (str): Where they come from.
        to (str): See ``convert``. What timm calls a DeiT is one, except for timm, which knows more kinds.

    Returns:
        Student | None: None if it is none of these.

    Raises:
        ValueError: If it is not all of one.
    """
    family, recorded = family_of(weights), section(config, 'model')
    of_timm = str(recorded.get('type', '')).endswith('TimmClassifier')
    if not of_timm and family is None or of_timm and to != 'timm' and _is_deit(weights):
        return None
    weights = {k: v for k, v in weights.items() if not k.startswith('data_preprocessor.')}
    check_weights(weights, source, counted(weights))
    of_mmpretrain = family in OF_MMPRETRAIN
    if of_mmpretrain and to == 'mmpretrain' and recorded:
        with torch.device('meta'):
            built = build_classifier(recorded_model(config, weights, source))
        check_whole(weights, built, source, f'{type(built).__name__} of its config')
        model, number = None, num_classes_of_weights({}, weights)
    else:
        by_timm = student_to_timm(weights, source) if of_mmpretrain else weights
        if of_mmpretrain:
            _check_fixed(section(config, 'model', 'backbone'), family, source, to)
        model = _timm_model(config, by_timm, source, family)
        model.check(by_timm, source)
        number = num_classes_of_weights(dict(model_name=model.name), by_timm)
    classes = recorded_classes(meta, number)
    if not classes and number == len(IMAGENET_CATEGORIES):
        classes = list(IMAGENET_CATEGORIES)
    return Student(source, weights, model, of_mmpretrain, config, classes)


def _timm_model(config: dict, weights: Weights, source: str, family: str | None) -> TimmModel:
    if family == 'efficientformer':
        return efficientformer_model(weights)
    if str(section(config, 'model').get('type', '')).endswith('TimmClassifier'):
        return recorded_timm_model(recorded_model(config, weights, source))
    return levit_model(weights)


def _check_fixed(backbone: Mapping, family: str | None, source: str, to: str):
    """Raise a ValueError if a backbone of mmpretrain has what timm's model has no argument for."""
    kind = EfficientFormer if family == 'efficientformer' else LeViT
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in _FIXED and name in backbone and backbone[name] != parameter.default:
            raise ValueError(
                f'{source} has model.backbone.{name}={shown(backbone[name])}, for which {to} has no place: '
                f'there it is as by default, {shown(parameter.default)}'
            )


def _is_deit(weights: Weights) -> bool:
    try:
        return to_mmpretrain(weights)[0] is not None
    except ValueError:  # another kind of vision transformer
        return False


def converted(student: Student, to: str, target: str) -> bytes | dict[str, bytes]:
    """The bytes of a file, or of the files of a folder. Arguments: see ``convert``.

    Raises:
        ValueError: If the library has no such model.
    """
    if to == 'mmpretrain' or student.model is None:
        prefix = '' if student.of_mmpretrain else 'model.'
        weights = {prefix + name: value for name, value in _copied(student.weights).items()}
        return mmpretrain_file(weights, student.classes)
    if to == 'facebook':
        raise ValueError(
            f"--to facebook writes a DeiT, and {student.source} is a {student.model.name} by timm's names: "
            '--to timm, transformers or mmpretrain'
        )
    weights = _copied(student.by_timms_names)
    return timm_file(weights, target) if to == 'timm' else _transformers(student, student.model, weights)


def _copied(weights: Weights) -> Weights:
    return {name: value.contiguous().clone() for name, value in weights.items()}


def _transformers(student: Student, model: TimmModel, weights: Weights) -> dict[str, bytes]:
    number = num_classes_of_weights(dict(model_name=model.name), weights) or 0
    classes = student.classes or [f'LABEL_{i}' for i in range(number)]
    images = preparation_of(student.config, model)
    if model.is_levit and 'stages.2.blocks.0.attn.attention_biases' in weights:
        files = {
            'config.json': levit_config(weights, classes),
            PROCESSOR: levit_processor(images),
        }
        weights = levit_to_transformers(weights)
    else:
        files = {'config.json': wrapper_config(model, images, classes)}
    return {
        'model.safetensors': safetensors(weights),
        **{name: json.dumps(content, indent=2).encode() for name, content in files.items()},
    }


def fused(student: Student | None, given: Weights, source: str, to: str) -> Student:
    """A student with one head in place of two.

    Args:
        student (Student, optional): As :func:`read_student` gives it.
        given (dict): Its weights.
        source (str): Where they come from.
        to (str): See ``convert``.

    Raises:
        ValueError: If that is no student with two heads on the same features, its prediction is not their
            mean, or the library has none with one head.
    """
    if student is None:
        fuse_heads(given, source)  # it has reasons for most of these
        raise ValueError(
            f'{source} records no model, so nothing tells whether it is whole and reads the mean of both '
            'heads: name its config (--config)'
        )
    two_prefixes(given, source)  # a head that is not there is not called untrained
    _check_mean(section(student.config, 'model'), source)
    if student.model is None or student.of_mmpretrain and to == 'mmpretrain':
        return student._replace(weights=fuse_heads(student.weights, source))
    weights = fuse_heads(student.by_timms_names, source)
    model = student.model.with_one_head()
    model.check(weights, source)
    return student._replace(weights=weights, model=model, of_mmpretrain=False)


def _check_mean(model: Mapping, source: str):
    """Raise a ValueError if the evaluation of a model does not read the mean of two trained heads."""
    head = section(model, 'head')
    prediction = model.get('prediction') or head.get('prediction') or 'mean'
    if prediction != 'mean':
        raise ValueError(
            f'{source} was trained with prediction={shown(prediction)}, and one head in place of two gives '
            'the mean: `deit-plugin export` writes a program with that prediction'
        )
    loss = section(head or model, 'loss')
    untrained = [key for key, value in dict(mode='none', distill_on='cls').items() if loss.get(key) == value]
    if untrained and str(loss.get('type')).endswith('DistillationLoss'):
        raise ValueError(
            f'The distillation head of {source} is not trained ({untrained[0]}={loss[untrained[0]]!r}), so '
            'the mean of both is of no use: `deit-plugin export --head cls` leaves it out'
        )
