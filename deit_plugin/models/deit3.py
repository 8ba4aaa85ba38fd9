"""The DeiT III backbone (Touvron et al. 2022, arXiv 2204.07118)."""

from collections.abc import Sequence
from numbers import Real

from mmpretrain.registry import MODELS

from .arguments import sizes
from .backbone import DeiT, Size


def default_patch_size(arch: str | dict) -> int:
    """Height and width of a patch, in pixels, of a published ``arch``."""
    return 14 if str(arch).lower() == 'huge' else 16


@MODELS.register_module()
class DeiTIII(DeiT):
    """Vision transformer with LayerScale, as facebookresearch/deit at ``7e160fe`` has it (``models_v2.py``).

    It differs from :class:`DeiT` in that

    - each residual branch is multiplied by a learned vector (LayerScale, arXiv 2103.17239);
    - the patches alone have position embeddings, the tokens none;
    - the stochastic depth is the same in every layer.

    The name is not ``DeiT3``: mmpretrain's backbone of that name stays what it is. The parameters have its
    names, so its checkpoints are read, but up to 1.2.0 it applies the first norm of a layer in place of the
    second and gives other logits. Those of facebookresearch/deit and timm are translated as for a DeiT.

    Args:
        arch (str | dict): ``'tiny'`` (width 192, 12 layers, 3 heads), ``'small'`` (384, 12, 6), ``'medium'``
            (512, 12, 8), ``'base'`` (768, 12, 12), ``'large'`` (1024, 24, 16) or ``'huge'`` (1280, 32, 16),
            or a dict as for :class:`DeiT`. Defaults to ``'base'``.
        patch_size (int | tuple, optional): Height and width of a patch, in pixels. Defaults to None: 14 for
            ``'huge'``, else 16. The reference trains ``'huge'`` on images of 160, of which it cuts off six
            pixels: ``patch_cfg=dict(padding=0)``.
        drop_path_rate (float): Stochastic depth of every layer, in [0, 1). Defaults to 0.
        layer_scale_init_value (float): What LayerScale starts from, above 0. Defaults to 1e-4.
        layer_cfgs (dict | Sequence[dict]): As for mmpretrain's ``VisionTransformer``. Defaults to {}.
        **kwargs: As for :class:`DeiT`, ``distilled`` included, which no published model has.

    Raises:
        ValueError: As for :class:`DeiT`, and if ``layer_scale_init_value`` is out of its range.
    """

    arch_zoo = dict(
        DeiT.arch_zoo, medium=sizes(512, 8), large=sizes(1024, 16, layers=24), huge=sizes(1280, 16, layers=32)
    )
    tokens_have_positions = False

    def __init__(
        self,
        arch: str | dict = 'base',
        patch_size: Size | None = None,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-4,
        layer_cfgs: dict | Sequence[dict] = {},
        **kwargs,
    ):
        if not isinstance(layer_scale_init_value, Real) or not layer_scale_init_value > 0:
            raise ValueError(
                f'layer_scale_init_value={layer_scale_init_value} is not above 0: a model without LayerScale '
                'is DeiT'
            )
        # The parent's rates grow from layer to layer.
        rate = dict(drop_path_rate=drop_path_rate)
        single = isinstance(layer_cfgs, dict)
        super().__init__(
            arch=arch,
            patch_size=default_patch_size(arch) if patch_size is None else patch_size,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=layer_scale_init_value,
            layer_cfgs={**rate, **layer_cfgs} if single else [{**rate, **cfg} for cfg in layer_cfgs],
            **kwargs,
        )
