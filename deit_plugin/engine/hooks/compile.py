"""torch.compile for the parts of a classifier that take the time."""

from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS

from ...models.layers import DropPath
from ..utils import unwrap


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the student's backbone, of timm the whole model, and the teacher, with
    ``torch.compile``.

    They are compiled in place, so checkpoints, moving averages, optimizers
    and distributed wrappers see the same modules under the same names.
    Augmentation, heads and losses, whose shapes and choices change, stay as
    they are. Validation runs what is compiled, too.

    Args:
        teacher (bool): Whether to compile the teacher too. Defaults to True.
        **kwargs: The arguments of ``torch.compile``.
    """

    def __init__(self, teacher: bool = True, **kwargs):
        self.teacher = teacher
        self.kwargs = kwargs

    def before_train(self, runner) -> None:
        """Compile; the work is done at the first iteration.

        Raises:
            ValueError: If a single graph is asked for, and there is drop path.
        """
        model = unwrap(runner.model)
        if self.kwargs.get('fullgraph') and any(
            isinstance(m, DropPath) and m.drop_prob for m in model.modules()
        ):
            raise ValueError(
                'fullgraph=True: drop path is drawn outside of a graph. Leave it out, or set '
                '`model.backbone.drop_path_rate=0`'
            )
        # A model of timm has no backbone apart from its heads.
        getattr(model, 'backbone', getattr(model, 'model', None)).compile(**self.kwargs)
        teacher = getattr(model, 'teacher', None)
        if self.teacher and teacher is not None:
            teacher.compile_kwargs = self.kwargs
            if teacher.model is not None:  # built already
                teacher.model.compile(**self.kwargs)
