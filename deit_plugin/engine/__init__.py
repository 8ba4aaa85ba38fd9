from .compile import CompileHook
from .hooks import AtomicCheckpointHook, FilledModelHook, FiniteLossHook
from .optimizer import GroupedOptimWrapperConstructor
from .schedule import DeiTLR, GlobalBatchHook
from .seeding import SeedHook
from .teacher_labels import TeacherLabelLoop, TeacherLabelsHook

__all__ = [
    'AtomicCheckpointHook', 'CompileHook', 'DeiTLR', 'FilledModelHook',
    'FiniteLossHook', 'GlobalBatchHook', 'GroupedOptimWrapperConstructor',
    'SeedHook', 'TeacherLabelLoop', 'TeacherLabelsHook'
]
