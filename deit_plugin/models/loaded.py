"""Models of other libraries, which have drawn or loaded their weights when they are built."""

import torch.nn as nn
from mmpretrain.models import HuggingFaceClassifier, TimmClassifier


def keep_weights(model: nn.Module):
    """Keep the weights of timm's and Hugging Face's models, also pretrained ones, where mmengine initialises.

    Many of them have a method ``init_weights``, which ``BaseModule.init_weights`` calls, as a runner does
    before a training: all weights would be drawn anew.

    Args:
        model (nn.Module): A classifier of either, or any model with such in it.
    """
    for module in model.modules():
        if isinstance(module, (TimmClassifier, HuggingFaceClassifier)):
            module.model.is_init = True  # what mmengine looks at
