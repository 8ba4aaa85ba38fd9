from .hooks import AtomicCheckpointHook, FiniteLossHook

__all__ = ['AtomicCheckpointHook', 'FiniteLossHook']
