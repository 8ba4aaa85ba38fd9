from .agc import AdaptiveClipping
from .ema import ForeachEMA
from .hooks import *
from .hooks import __all__ as _hooks
from .loops import TeacherLabelLoop
from .optimizers import GroupedOptimWrapperConstructor
from .runner import DeiTRunner, FineTuneRunner
from .schedulers import DeiTLR

__all__ = [
    'AdaptiveClipping',
    'DeiTLR',
    'DeiTRunner',
    'FineTuneRunner',
    'ForeachEMA',
    'GroupedOptimWrapperConstructor',
    'TeacherLabelLoop',
    *_hooks,
]
