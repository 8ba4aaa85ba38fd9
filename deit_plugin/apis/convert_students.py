"""Conversion of students that are no DeiTs."""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from ..checkpoints.contents import check_weights
from ..checkpoints.names import Weights, to_mmpretrain
from ..checkpoints.recorded import config_of, meta_of, recorded_classes, section
from ..checkpoints.student_names import family_of, levit_to_transformers, student_to_timm
from ..checkpoints.timm_model import TimmModel, efficientformer_model, levit_model, recorded_timm_model
from ..models.recorded import num_classes_of_weights, recorded_model
from .convert_files import mmpretrain_file, safetensors, timm_file
from .fuse_heads import fuse_heads
from .student_configs import levit_config, levit_processor, preparation_of, wrapper_config
from .transformers_config import PROCESSOR

# Of the backbones of mmpretrain, what timm's and transformers' models have no place for.
_FIXED = ('act_cfg', 'attn_ratio', 'hybrid_backbone', 'pool_size', 'use_layer_scale')


class Student(NamedTuple):
    """A student that was read.

    source (str): Where it comes from.
    weights (dict): By mmpretrain's names, or by timm's.
    model (TimmModel): Which it is of timm.
    of_mmpretrain (bool): Whether the names are mmpretrain's.
    config (dict): Of the run that saved it, as far as it records one.
    classes (list[str]): Their names, or [].
    """

    source: str
    weights: Weights
    model: TimmModel
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


def read_student(checkpoint: Mapping, weights: Weights, source: str, to: str) -> Student | None:
    """A LeViT or EfficientFormer of mmpretrain, a LeViT of timm, or any model of timm that is recorded.

    Args:
        checkpoint (Mapping): All that the file holds.
        weights (dict): Its weights, of timm by timm's names.
        source (str): Where it comes from.
        to (str): See ``convert``. What timm calls a DeiT is one, except for timm, which knows more kinds.

    Returns:
        Student | None: None if it is none of these.

    Raises:
        ValueError: If it is not all of one.
    """
    meta = meta_of(checkpoint)
    config, family = config_of(meta), family_of(weights)
    recorded = section(config, 'model')
    of_timm = str(recorded.get('type', '')).endswith('TimmClassifier')
    if not of_timm and family is None or of_timm and to != 'timm' and _is_deit(weights):
        return None
    weights = {k: v for k, v in weights.items() if not k.startswith('data_preprocessor.')}
    check_weights(weights, source, _integers(weights))
    by_timm = student_to_timm(weights, source) if family in ('levit', 'efficientformer') else weights
    if of_timm:
        model = recorded_timm_model(recorded_model(config, weights, source))
    elif family == 'efficientformer':
        model = efficientformer_model(by_timm)
    else:
        model = levit_model(by_timm)
    model.check(by_timm, source)
    number = num_classes_of_weights(dict(model_name=model.name), by_timm)
    classes = recorded_classes(meta, number)
    if not classes and number == len(IMAGENET_CATEGORIES):
        classes = list(IMAGENET_CATEGORIES)
    return Student(source, weights, model, by_timm is not weights, config, classes)


def _is_deit(weights: Weights) -> bool:
    try:
        return to_mmpretrain(weights)[0] is not None
    except ValueError:  # another kind of vision transformer
        return False


def _integers(weights: Weights) -> set[str]:
    return {name for name in weights if name.endswith(('num_batches_tracked', 'bias_idxs'))}


def converted(student: Student, to: str, target: str) -> bytes | dict[str, bytes]:
    """The bytes of a file, or of the files of a folder. Arguments: see ``convert``.

    Raises:
        ValueError: If the library has no such model.
    """
    if to == 'facebook':
        raise ValueError(
            f"--to facebook writes a DeiT, and {student.source} is a {student.model.name} by timm's names: "
            '--to timm, transformers or mmpretrain'
        )
    if to == 'mmpretrain':
        prefix = '' if student.of_mmpretrain else 'model.'
        weights = {prefix + name: value for name, value in _copied(student.weights).items()}
        return mmpretrain_file(weights, student.classes)
    backbone = section(student.config, 'model', 'backbone')
    if student.of_mmpretrain and (other := [name for name in _FIXED if name in backbone]):
        raise ValueError(f'{student.source} has model.backbone.{other[0]}, for which {to} has no place')
    weights = _copied(student.by_timms_names)
    return timm_file(weights, target) if to == 'timm' else _transformers(student, weights)


def _copied(weights: Weights) -> Weights:
    return {name: value.contiguous().clone() for name, value in weights.items()}


def _transformers(student: Student, weights: Weights) -> dict[str, bytes]:
    number = num_classes_of_weights(dict(model_name=student.model.name), weights) or 0
    classes = student.classes or [f'LABEL_{i}' for i in range(number)]
    images = preparation_of(student.config, student.model)
    if student.model.is_levit and 'stages.2.blocks.0.attn.attention_biases' in weights:
        files = {
            'config.json': levit_config(weights, classes),
            PROCESSOR: levit_processor(images),
        }
        weights = levit_to_transformers(weights)
    else:
        files = {'config.json': wrapper_config(student.model, images, classes)}
    return {
        'model.safetensors': safetensors(weights),
        **{name: json.dumps(content, indent=2).encode() for name, content in files.items()},
    }


def fused(checkpoint: Mapping, weights: Weights, source: str, to: str, target: str) -> bytes:
    """The bytes of a file with one head in place of two. Arguments: see :func:`read_student`.

    Raises:
        ValueError: If that is no such student, or ``to`` not its library.
    """
    check_weights(weights, source, _integers(weights))
    weights = _copied(fuse_heads(weights, source))
    of_mmpretrain = any(name.startswith('backbone.') for name in weights)
    if to not in ('timm', 'mmpretrain') or to == 'timm' and of_mmpretrain:
        raise ValueError(
            f'--to {to} --fuse-heads: {source} is a student of {"mmpretrain" if of_mmpretrain else "timm"}, '
            f'so --to {"mmpretrain" if of_mmpretrain else "timm, or mmpretrain"}'
        )
    if to == 'timm':
        return timm_file(weights, target)
    number = next(len(v) for name, v in weights.items() if re.search(r'head\.(l\.|linear\.)?bias$', name))
    prefix = '' if of_mmpretrain else 'model.'
    weights = {prefix + name: value for name, value in weights.items()}
    return mmpretrain_file(weights, recorded_classes(meta_of(checkpoint), number))
