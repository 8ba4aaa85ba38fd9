"""The configs of teachers and of timm's students, by a name or from a checkpoint."""

import difflib

import timm
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader
from mmpretrain.apis.model import ModelHub, list_models

from ..checkpoints.contents import weights_of
from ..checkpoints.recorded import config_of, meta_of, recorded_classes
from ..messages import some
from ..models.recorded import num_classes_of_config, recorded_model, set_num_classes

LABELS = dict(type='LabelSmoothLoss', label_smooth_val=0.1)  # as DistillationLoss has it


def named_classifier(name: str | dict, num_classes: int, image_size: int, pretrained: bool) -> dict:
    """The config of a classifier.

    Args:
        name (str | dict): Of a timm model or of one in mmpretrain's hub, the path of a config (``.py``), or
            the config of the model itself.
        num_classes (int): Which it gets.
        image_size (int): Of its images, for timm models that are made for one size.
        pretrained (bool): Whether it is to start from its published weights.

    Returns:
        dict: With ``data_preprocessor``: ``mean``, ``std`` and perhaps ``to_rgb``; and with ``published``,
        the address of weights to start from, if ``pretrained`` and the hub names one.

    Raises:
        ValueError: If there is no such classifier.
    """
    if isinstance(name, dict):
        return _with_classes(dict(name), num_classes)
    if name.endswith('.py'):
        cfg = Config.fromfile(name)
        return _with_classes(_model_of(cfg), num_classes)
    if timm.models.is_model(name):
        return _of_timm(name, num_classes, image_size, pretrained)
    in_hub = list_models()
    if name.lower() not in in_hub:
        raise ValueError(
            f"teacher={name!r} is neither a model of timm nor one in mmpretrain's hub. Close: "
            f'{some(difflib.get_close_matches(name, [*timm.list_models(), *in_hub]))}'
        )
    info = ModelHub.get(name)
    model = _with_classes(_model_of(info.config), num_classes)
    return dict(model, published=info.weights) if pretrained else model


def named_student(name: str, pretrained: bool) -> dict:
    """The config of a student of timm, to be distilled through both heads if it has two.

    Args:
        name (str): Of a timm model.
        pretrained (bool): Whether it is to start from its published weights.

    Returns:
        dict: As of :func:`named_classifier`, without classes and size.

    Raises:
        ValueError: If timm has no such model.
    """
    if not timm.models.is_model(name):
        close = some(difflib.get_close_matches(name.lower(), timm.list_models()))
        raise ValueError(f'student={name!r} is no model of timm. Close: {close}')
    with torch.device('meta'):
        two = hasattr(timm.create_model(name), 'set_distilled_training')
    return dict(
        type='DistilledTimmClassifier',
        model_name=name,
        pretrained=pretrained,
        loss=dict(type='DistillationLoss', distill_on='dist' if two else 'cls'),
        data_preprocessor=_preparation(name),
    )


def _preparation(name: str) -> dict:
    own = timm.get_pretrained_cfg(name)
    return dict(mean=[255 * v for v in own.mean], std=[255 * v for v in own.std], to_rgb=True)


def _of_timm(name: str, num_classes: int, image_size: int, pretrained: bool) -> dict:
    model = dict(
        type='TimmClassifier',
        model_name=name,
        num_classes=num_classes,
        pretrained=pretrained,
        loss=dict(LABELS),
        data_preprocessor=_preparation(name),
    )
    return dict(model, **size_of_timm(name, image_size))


def size_of_timm(name: str, image_size: int) -> dict:
    """``dict(img_size=...)`` for a timm model that is made for one size, another than this; else {}."""
    own = timm.get_pretrained_cfg(name)
    other = own is not None and own.fixed_input_size and own.input_size[-1] != image_size
    return dict(img_size=image_size) if other else {}


def _model_of(cfg: Config) -> dict:
    model = cfg.model.to_dict()
    model.setdefault('data_preprocessor', dict(cfg.get('data_preprocessor') or {}))
    for other in ('type', 'num_classes'):
        model['data_preprocessor'].pop(other, None)
    return model


def _with_classes(model: dict, num_classes: int) -> dict:
    if 'head' in model:
        model['head'] = dict(model['head'])
        model['head'].pop('topk', None)
    set_num_classes(model, num_classes)
    return model


def recorded_classifier(path: str) -> tuple[dict, list[str]]:
    """The config of the model in a checkpoint that mmengine wrote, and the names of its classes.

    Raises:
        ValueError: If the checkpoint records none, or none that can be built from here.
    """
    checkpoint = CheckpointLoader.load_checkpoint(path, 'cpu', logger='silent')
    meta = meta_of(checkpoint)
    model = recorded_model(config_of(meta), weights_of(checkpoint, path), path)
    return model, recorded_classes(meta, num_classes_of_config(model))
