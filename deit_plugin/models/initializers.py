"""Drawing the weights of layers by their names."""

import re

import torch.nn as nn
from mmengine.model import TruncNormalInit
from mmengine.registry import WEIGHT_INITIALIZERS


@WEIGHT_INITIALIZERS.register_module()
class NamedTruncNormal(TruncNormalInit):
    """mmengine's ``TruncNormal`` for the layers of certain names, such as those of another library's model.

    Args:
        names (str): A regular expression that is searched for in the names of all modules.
        **kwargs: As for ``TruncNormal``: ``std``, ``bias``, ``layer`` and so on.

    Raises:
        ValueError: If no module has such a name.
    """

    def __init__(self, names: str, **kwargs):
        super().__init__(**kwargs)
        self.names = names

    def __call__(self, module: nn.Module):
        """Draw the weights of the layers in ``module``."""
        found = [part for name, part in module.named_modules() if re.search(self.names, name)]
        if not found:
            raise ValueError(
                f'init_cfg=dict(type={type(self).__name__!r}, names={self.names!r}): no module of '
                f'{type(module).__name__} has such a name'
            )
        for part in found:
            super().__call__(part)
