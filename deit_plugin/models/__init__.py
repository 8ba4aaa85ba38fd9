from .backbone import DeiT
from .binary_cross_entropy import BinaryCrossEntropyLoss
from .classifier import DistilledClassifier
from .cosub import CosubClassifier
from .data_preprocessor import DeiTDataPreprocessor
from .deit3 import DeiTIII
from .dual_logits import Classifiers, classifiers
from .ensemble import EnsembleClassifier
from .filled_head import DeiTHead
from .foreign_names import accept_foreign_names
from .head import DeiTDualHead
from .initializers import NamedTruncNormal
from .levit import TrainableLeViT, TrainableLeViTClsHead
from .loss import DistillationLoss
from .masked import MaskedDeiT
from .neck import DistillationTokenNeck
from .taught import TaughtClassifier
from .timm_classifier import DistilledTimmClassifier

__all__ = [
    'BinaryCrossEntropyLoss',
    'Classifiers',
    'CosubClassifier',
    'DeiT',
    'DeiTDataPreprocessor',
    'DeiTDualHead',
    'DeiTHead',
    'DeiTIII',
    'DistillationLoss',
    'DistillationTokenNeck',
    'DistilledClassifier',
    'DistilledTimmClassifier',
    'EnsembleClassifier',
    'MaskedDeiT',
    'NamedTruncNormal',
    'TaughtClassifier',
    'TrainableLeViT',
    'TrainableLeViTClsHead',
    'accept_foreign_names',
    'classifiers',
]
