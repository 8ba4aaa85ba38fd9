from .atomic_checkpoint import AtomicCheckpointHook
from .compile import CompileHook
from .curves import CurvesHook
from .filled_model import FilledModelHook
from .finite_loss import FiniteLossHook
from .global_batch import GlobalBatchHook
from .history import HistoryHook
from .seed import SeedHook
from .setup import SetupHook
from .step_ema import StepEMAHook
from .teacher_labels import TeacherLabelsHook

__all__ = [
    'AtomicCheckpointHook',
    'CompileHook',
    'CurvesHook',
    'FilledModelHook',
    'FiniteLossHook',
    'GlobalBatchHook',
    'HistoryHook',
    'SeedHook',
    'SetupHook',
    'StepEMAHook',
    'TeacherLabelsHook',
]
