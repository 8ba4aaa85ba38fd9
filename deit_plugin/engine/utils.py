"""Helpers that several parts of the engine share."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn
from mmengine.model import BaseTTAModel, is_model_wrapper


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers of distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def names_weights(model) -> bool:
    """Whether the config of a model, but for its teacher, names weights to start from."""
    if isinstance(model, dict):
        named = model.get('type') == 'Pretrained' or model.get('pretrained')
        return bool(named) or any(names_weights(v) for k, v in model.items() if k != 'teacher')
    return isinstance(model, (list, tuple)) and any(map(names_weights, model))


@contextmanager
def into_the_file(logger: logging.Logger) -> Iterator[None]:
    """What is logged meanwhile goes into the log file, not to the terminal; errors do."""
    terminals = [h for h in logger.handlers if not isinstance(h, logging.FileHandler)]
    levels = [handler.level for handler in terminals]
    for handler in terminals:
        handler.setLevel(max(handler.level, logging.ERROR))
    try:
        yield
    finally:
        for handler, level in zip(terminals, levels):
            handler.setLevel(level)
