from .hooks import AtomicCheckpointHook, FilledModelHook, FiniteLossHook
from .schedule import DeiTLR, GlobalBatchHook

__all__ = [
    'AtomicCheckpointHook', 'DeiTLR', 'FilledModelHook', 'FiniteLossHook',
    'GlobalBatchHook'
]
