from .atomic_checkpoint import AtomicCheckpointHook
from .compile import CompileHook
from .filled_model import FilledModelHook
from .finite_loss import FiniteLossHook
from .global_batch import GlobalBatchHook
from .seed import SeedHook
from .teacher_labels import TeacherLabelsHook

__all__ = [
    'AtomicCheckpointHook',
    'CompileHook',
    'FilledModelHook',
    'FiniteLossHook',
    'GlobalBatchHook',
    'SeedHook',
    'TeacherLabelsHook',
]
