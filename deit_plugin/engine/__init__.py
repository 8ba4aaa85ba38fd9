from .hooks import AtomicCheckpointHook, FiniteLossHook
from .schedule import DeiTLR, GlobalBatchHook

__all__ = [
    'AtomicCheckpointHook', 'DeiTLR', 'FiniteLossHook', 'GlobalBatchHook'
]
