from .backbone import DeiT
from .classifier import DistilledClassifier
from .data_preprocessor import DeiTDataPreprocessor
from .filled_head import DeiTHead
from .foreign_names import accept_foreign_names
from .head import DeiTDualHead
from .loss import DistillationLoss
from .masked import MaskedDeiT
from .neck import DistillationTokenNeck

__all__ = [
    'DeiT',
    'DeiTDataPreprocessor',
    'DeiTDualHead',
    'DeiTHead',
    'DistillationLoss',
    'DistillationTokenNeck',
    'DistilledClassifier',
    'MaskedDeiT',
    'accept_foreign_names',
]
