"""A check that the model holds what its checkpoint holds."""

import logging
from itertools import chain

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop
from mmpretrain.registry import HOOKS

from ...checkpoints.contents import check_weights, weights_of
from ...checkpoints.recorded import without_code
from ...messages import some
from ...models import DeiT, accept_foreign_names
from ..resuming import check_resumable
from ..utils import unwrap

# Of other variants of DeiT: newly drawn where a checkpoint lacks them.
_OPTIONAL = ('dist_token', 'mask_token')
_MOST = 0.9  # of a model may be drawn anew where a training begins: a small backbone in a large detector


@HOOKS.register_module()
class FilledModelHook(Hook):
    """Checks that a checkpoint fills the model, and stops the evaluation of one that it does not fill.

    A checkpoint that is resumed must be one of such a training: see :func:`check_resumable`.

    mmengine prints a warning of what is missing and goes on with random weights. To fine-tune that is
    as it should be: a head for other classes is drawn anew, and so is a distillation token that the
    checkpoint lacks; the log lists them. A :class:`DeiT` that lacks anything else is refused, and so is a
    checkpoint that fills less than a tenth of a model.

    The hook also lets any model with a DeiT as a part, such as ``SimMIM`` or a detector, load the
    weights of other libraries by their names; an ``ImageClassifier`` does so without it.
    """

    priority = 'HIGHEST'  # before other hooks take a state from a checkpoint

    def __init__(self):
        self._watched = None
        self._given: dict | None = None  # the state dict, while a checkpoint is loaded
        self._may_lack = False

    def before_run(self, runner) -> None:
        """Register the load hooks."""
        model = unwrap(runner.model)
        if model is not self._watched:
            self._watched = model
            accept_foreign_names(model)
            model.register_load_state_dict_pre_hook(self._before_loading)
            model.register_load_state_dict_post_hook(self._after_loading)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Called after a checkpoint was read and before it is loaded into the model.

        Raises:
            ValueError: If it cannot be one.
        """
        if not isinstance(checkpoint, dict):
            raise ValueError(f'The checkpoint holds a {type(checkpoint).__name__}, not weights by name')
        without_code(checkpoint)  # whichever loader read it
        is_training = isinstance(runner._train_loop, BaseLoop)
        if is_training and runner._resume:
            check_resumable(checkpoint, runner, unwrap(runner.model))
        if any(isinstance(module, DeiT) for module in unwrap(runner.model).modules()):
            # Where other hooks look for it; in facebookresearch/deit's files it is `model`.
            checkpoint.setdefault('state_dict', weights_of(checkpoint))
        self._may_lack = is_training and not runner._resume
        self._given = {}

    def _before_loading(self, model, state_dict, *args):
        if self._given is not None:
            self._given = dict(state_dict)  # under our names now
            own = _own(model)
            integers = {name for name, value in own.items() if not value.is_floating_point()}
            check_weights({k: v for k, v in state_dict.items() if k in own}, 'The checkpoint', integers)

    def _after_loading(self, model, incompatible_keys):
        given, self._given = self._given, None
        if given is None:
            return
        own = {n: value for n, value in _own(model).items() if not n.endswith('num_batches_tracked')}
        lacking = [name for name, value in own.items() if not _same(name, given.get(name), value)]
        if not lacking:
            return
        backbone = [
            f'{path}.{name}'.lstrip('.')
            for path, module in model.named_modules()
            if isinstance(module, DeiT)
            for name in module.state_dict()
            if name not in _OPTIONAL
        ]
        if not self._may_lack or set(lacking) & set(backbone):
            raise ValueError(
                f'The checkpoint does not fill {some(lacking)}, which would be random. Is it of a model with '
                'as many classes and the same tokens? It may serve to start a training from, as `load_from`'
            )
        if len(lacking) > _MOST * len(own):
            raise ValueError(
                f'The checkpoint fills {len(own) - len(lacking)} of the {len(own)} weights of the model: is '
                f'it of another one? It lacks {some(lacking)}. Set `load_from` to weights of it, or to None'
            )
        print_log(
            f'Not filled by the checkpoint, newly drawn: {", ".join(lacking)}',
            logger='current',
            level=logging.WARNING,
        )


def _own(model) -> dict[str, torch.Tensor]:
    """What a checkpoint fills, by the names of loading: ``TimmClassifier`` has shorter ones when it saves."""
    saved = {id(value) for value in model.state_dict(keep_vars=True).values()}
    tensors = chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    )
    return {name: value.detach() for name, value in tensors if id(value) in saved}


def _same(name: str, given, value: torch.Tensor) -> bool:
    if not isinstance(given, torch.Tensor):
        return False
    if name.endswith('pos_embed') and given.shape != value.shape:
        return True  # it was resized; the backbone refuses what cannot be
    if given.shape != value.shape or given.layout != value.layout:
        return False
    return torch.equal(given.to(value), value)
