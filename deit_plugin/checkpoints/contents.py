"""The layout of checkpoint files: where the weights are."""

from collections.abc import Mapping

from mmengine.logging import print_log

# mmengine and timm, facebookresearch/deit.
_WEIGHTS = ('state_dict', 'model')
# The moving average in files of timm and of facebookresearch/deit. mmengine has it under
# `state_dict`, where it is read like any weights.
AVERAGES = ('state_dict_ema', 'model_ema')


def weights_of(checkpoint: Mapping, source: str = 'the checkpoint', average: bool = False) -> dict:
    """The state dict in a checkpoint, or the checkpoint itself where it is a bare one.

    Args:
        checkpoint (Mapping): What a file holds.
        source (str): What the file is called, for messages.
        average (bool): Whether to take the moving average that stands beside the weights.

    Raises:
        ValueError: If there are no weights, or no moving average.
    """
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{source} holds a {type(checkpoint).__name__}, not a checkpoint or a state dict')
    held = [key for key in AVERAGES if isinstance(checkpoint.get(key), Mapping)]
    if average and not held:
        raise ValueError(f'{source} holds no {" or ".join(AVERAGES)}: leave out --ema')
    if average:
        return dict(checkpoint[held[0]])
    if held:
        print_log(
            f'{source} holds a moving average too ({held[0]}), which is not taken: `deit-plugin '
            'convert --ema` writes it',
            logger='current',
        )
    for key in _WEIGHTS:
        if isinstance(checkpoint.get(key), Mapping):
            return dict(checkpoint[key])
    return dict(checkpoint)
