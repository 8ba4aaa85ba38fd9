"""The model that a checkpoint records, built without running what the file chooses."""

import copy
from collections.abc import Iterator, Mapping, MutableMapping

import torch
from mmengine.registry import WEIGHT_INITIALIZERS, DefaultScope
from mmpretrain.models import BaseClassifier, HuggingFaceClassifier
from mmpretrain.registry import MODELS
from timm.models import get_pretrained_cfg, is_model

from ..checkpoints.names import to_mmpretrain
from ..checkpoints.recorded import section
from ..messages import shown, some

# Which download or read other files, or are of no use without a training.
_LEFT_OUT = (
    'teacher',
    'teacher_labels',
    'init_cfg',
    'pretrained',
    'checkpoint',
    'checkpoint_path',
    'train_cfg',
)
# What a recorded pipeline may hold; images are loaded by LoadImage.
_STEPS = ('ResizeEdge', 'Resize', 'CenterCrop', 'ReverseChannels', 'PackInputs')
_PACKAGES = ('mmpretrain.', 'deit_plugin.', 'mmcv.', 'mmengine.')
_OURS = (*_PACKAGES, 'torch.nn.')


# The ways in: `predict` and `attention`, `evaluate`, and a teacher.
_NAME_IT = 'name its config (--config; for `deit-plugin evaluate` NAME; of a teacher `teacher`)'


def recorded_model(config: Mapping, weights: Mapping, source: str) -> dict:
    """The config of the classifier that a run recorded in its checkpoint.

    mmengine's registries import whatever a ``type`` with dots names, such as ``os.system``, and call it. Here
    each type must be registered, by OpenMMLab or this package, and the model no larger than its weights.

    Args:
        config (Mapping): Of the run, as literals (``config_of``).
        weights (Mapping): The state dict in the file.
        source (str): What the file is called, for messages.

    Returns:
        dict: With its ``data_preprocessor``, without teacher, initialisation and training.

    Raises:
        ValueError: If there is none, or none that can be built so.
    """
    model = config.get('model')
    if not isinstance(model, dict) or not model:
        raise ValueError(f'{source} records no config of its model, as mmengine writes it: {_NAME_IT}')
    model = _without(model)
    preprocessor = config.get('data_preprocessor')
    if isinstance(preprocessor, dict) and not model.get('data_preprocessor'):
        model['data_preprocessor'] = _without(preprocessor)
    if unknown := sorted(set(_unknown_types(model))):
        raise ValueError(
            f'{source} records types that are not known here, and none of them is imported: '
            f'{some(map(shown, unknown))}: {_NAME_IT}'
        )
    if model['type'].endswith('TimmClassifier') and not is_model(str(model.get('model_name'))):
        raise ValueError(
            f'{source} records a timm model {shown(model.get("model_name"))}, which timm has not'
        )
    with torch.device('meta'):
        built = build_classifier(model)
    if not isinstance(built, BaseClassifier) or isinstance(built, HuggingFaceClassifier):
        raise ValueError(f'{source} records a {type(built).__name__}, which is no classifier: {_NAME_IT}')
    own = sum(value.numel() for value in built.state_dict().values())
    given = sum(value.numel() for value in weights.values() if isinstance(value, torch.Tensor))
    if own > 2 * given:
        raise ValueError(f'{source} records a model of {own} values, but holds {given}')
    return model


def recorded_pipeline(config: Mapping) -> list[dict]:
    """The steps by which a run prepared its images in a test, but for their loading.

    Args:
        config (Mapping): Of the run, as literals (``config_of``).

    Raises:
        ValueError: If there are none, or others than those of a classification.
    """
    steps = section(config, 'test_dataloader', 'dataset').get('pipeline')
    steps = steps if isinstance(steps, list) else []
    steps = [_without(step) for step in steps]
    names = [step.get('type') if isinstance(step, dict) else step for step in steps]
    odd = [name for name in names if not isinstance(name, str) or not name.startswith(('LoadImage', *_STEPS))]
    if not steps or odd:
        raise ValueError(
            'The checkpoint does not tell how its images are prepared'
            + (f': {some(map(shown, odd))} are not known here' if odd else '')
            + f': {_NAME_IT}'
        )
    return [step for step in steps if step['type'] in _STEPS]


def num_classes_of_config(model: Mapping) -> int | None:
    """Of a classifier of mmpretrain, ``TimmClassifier`` included."""
    if 'num_classes' not in model and (of_timm := _timms_own(model)):
        return of_timm.num_classes
    return model.get('num_classes', (model.get('head') or {}).get('num_classes'))


def set_num_classes(model: MutableMapping, number: int):
    """Give the config of such a classifier a number of classes, in place."""
    (model['head'] if 'head' in model else model)['num_classes'] = number


def num_classes_of_weights(model: Mapping, weights: Mapping) -> int | None:
    """How many classes weights have, by the last layer of the head.

    Args:
        model (Mapping): The config of the classifier that they are of.
        weights (Mapping): By names that it loads.

    Returns:
        int | None: None if that does not show.
    """
    if of_timm := _timms_own(model):
        layers = of_timm.classifier
        layers = [layers] if isinstance(layers, str) else layers or ()
        names = [f'{prefix}{layer}.weight' for layer in layers for prefix in ('model.', '')]
    else:
        weights = to_mmpretrain(dict(weights))[1]
        names = [name for name in reversed(weights) if name.startswith('head.')]
    found = [weights[name] for name in names if name in weights]
    return next((len(v) for v in found if isinstance(v, torch.Tensor) and v.ndim > 1), None)


def _timms_own(model: Mapping):
    """timm's ``PretrainedCfg`` of a model, if it is one of timm."""
    name = model.get('model_name')
    return get_pretrained_cfg(name) if isinstance(name, str) and is_model(name) else None


def build_classifier(cfg: Mapping) -> BaseClassifier:
    """Build a model in mmpretrain's scope, as its own ``get_model`` does."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return MODELS.build(copy.deepcopy(dict(cfg)))


def _without(value):
    """A copy without what a model is not built from, and with the names of the registries as types."""
    if isinstance(value, dict):
        return {
            k: _registered_name(v) if k == 'type' else _without(v)
            for k, v in value.items()
            if k not in _LEFT_OUT
        }
    return [_without(item) for item in value] if isinstance(value, (list, tuple)) else value


def _registered_name(name):
    """A config in Python style records the path of a class. It is not imported: see ``_is_known``."""
    if not isinstance(name, str):
        return name
    package, _, last = name.rpartition('.')
    return last if package and f'{package}.'.startswith(_PACKAGES) else name


def _unknown_types(value) -> Iterator[str]:
    if isinstance(value, dict):
        if 'type' in value and not _is_known(value['type']):
            yield str(value['type'])
        for inner in value.values():
            yield from _unknown_types(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _unknown_types(inner)


def _is_known(name) -> bool:
    """Whether a type is a registered one of the packages here; nothing is imported to find out."""
    if not isinstance(name, str):
        return False
    for registry in (MODELS, MODELS.parent, WEIGHT_INITIALIZERS):
        found = registry.module_dict.get(name)
        if found is not None:
            return found.__module__.startswith(_OURS)
    return False
