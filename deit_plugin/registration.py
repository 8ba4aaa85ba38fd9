"""Registration of all parts; see the docstring of the package."""

import warnings

from .upstream import leave_out_what_cannot_be_imported

try:
    import mmcv  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'deit_plugin needs mmcv, which mmpretrain does not install by itself: '
        '`pip install mmcv-lite` (or the full `mmcv`, if its operators are '
        'needed)'
    ) from error

with warnings.catch_warnings():
    # mmcv-lite warns of an operator that no DeiT has.
    warnings.filterwarnings('ignore', 'Fail to import ``MultiScaleDeformableAttention``')
    leave_out_what_cannot_be_imported()
    import mmpretrain.models  # noqa: F401

from .checkpoints import loaders

try:
    from .datasets import *
    from .engine import *
    from .models import *
except KeyError as error:  # mmengine's, for a name that is registered already
    raise ImportError(
        f'deit_plugin cannot register its parts: {error.args[0]}. Two packages that are imported have a '
        'class of that name: import only one of them'
    ) from error
from .apis import hub

loaders.register()
hub.register()
