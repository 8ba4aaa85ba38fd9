"""Other libraries' weights in models that are not mmpretrain's classifiers."""

from functools import partial

import torch.nn as nn
from mmpretrain.models import ImageClassifier

from .backbone import DeiT
from .state_dict import translate


def accept_foreign_names(model: nn.Module):
    """Let the parts of a model that have a DeiT load the weights of any library by their names.

    mmpretrain's ``ImageClassifier`` does so by itself (``_checkpoint_filter``); this is for others, such
    as ``SimMIM``, a detector or a segmentor. :class:`FilledModelHook` calls it.

    Args:
        model (nn.Module): Any model.
    """
    for parent in model.modules():
        for name, child in parent.named_children():
            if isinstance(child, DeiT) and not isinstance(parent, ImageClassifier):
                parent.register_load_state_dict_pre_hook(partial(_translate_for, name))


def _translate_for(name: str, parent: nn.Module, state_dict: dict, prefix: str, *args):
    if not prefix:
        parts = [part for part, _ in parent.named_children()]
        translate(getattr(parent, name), state_dict, f'{name}.', parts)
