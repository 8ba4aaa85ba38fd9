"""DeiT for mmpretrain: importing this package registers all its parts."""
try:
    import mmcv  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'deit_plugin needs mmcv, which mmpretrain does not install by itself: '
        '`pip install mmcv-lite` (or the full `mmcv`, if its operators are '
        'needed)') from error

from . import checkpoint, zoo
from .datasets import *  # noqa: F401, F403
from .engine import *  # noqa: F401, F403
from .models import *  # noqa: F401, F403

__all__ = ['checkpoint', 'zoo']
