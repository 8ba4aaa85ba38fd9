from .backbone import DeiT
from .classifier import DistilledClassifier
from .head import DeiTDualHead
from .loss import DistillationLoss
from .neck import DistillationTokenNeck

__all__ = [
    'DeiT', 'DistilledClassifier', 'DeiTDualHead', 'DistillationLoss',
    'DistillationTokenNeck'
]
