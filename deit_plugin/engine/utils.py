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
