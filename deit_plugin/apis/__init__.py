from .convert import convert
from .evaluate import evaluate
from .hub import variants

__all__ = ['convert', 'evaluate', 'variants']
