"""Helpers that several hooks share."""

import torch.nn as nn
from mmengine.model import BaseTTAModel, is_model_wrapper


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, without the wrappers of distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
