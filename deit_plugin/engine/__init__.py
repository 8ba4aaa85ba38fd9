from .hooks import *
from .hooks import __all__ as _hooks
from .loops import TeacherLabelLoop
from .optimizers import GroupedOptimWrapperConstructor
from .schedulers import DeiTLR

__all__ = ['DeiTLR', 'GroupedOptimWrapperConstructor', 'TeacherLabelLoop', *_hooks]
