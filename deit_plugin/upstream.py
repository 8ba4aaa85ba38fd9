"""What is broken elsewhere, and has to be stepped around."""

import sys
import warnings


def leave_out_what_cannot_be_imported():
    """Beside transformers 5 and pycocotools, mmpretrain's multi-modal models take all its others with them
    (``TypeError: NoneType takes no arguments``). It has placeholders for whoever lacks one of the two."""
    from mmpretrain.utils import dependency

    if dependency.WITH_MULTIMODAL and 'mmpretrain.models' not in sys.modules:
        try:
            from transformers.modeling_utils import apply_chunking_to_forward  # noqa: F401
        except ImportError as error:
            dependency.WITH_MULTIMODAL = False
            warnings.warn(f"mmpretrain's multi-modal models are left out: {error}")
