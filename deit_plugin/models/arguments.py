"""Checks of a backbone's arguments, before anything is built."""

from collections.abc import Mapping, Sequence

from mmengine.utils import to_2tuple


def sizes(width: int, heads: int, layers: int = 12) -> dict:
    """An ``arch`` of mmpretrain's vision transformers, four times as wide between the layers of an MLP."""
    return dict(embed_dims=width, num_layers=layers, num_heads=heads, feedforward_channels=4 * width)


def check_arguments(
    arch_zoo: Mapping[str, dict],
    arch: str | dict,
    img_size: int | Sequence[int],
    patch_size: int | Sequence[int],
    drop_path_rate: float,
    out_indices: int | Sequence[int],
    frozen_stages: int,
    with_cls_token: bool = True,
    patch_cfg: Mapping = {},
    layer_cfgs: Mapping | Sequence[Mapping] = {},
    **kwargs,
):
    """Check what mmpretrain's ``VisionTransformer`` would only assert, or run into later.

    Args:
        arch_zoo (Mapping[str, dict]): The known architectures.
        **kwargs: Not looked at. The others: see :class:`DeiT`.

    Raises:
        ValueError: If one is out of its range.
    """
    if not cuts_off(patch_cfg):
        check_fit('img_size', to_2tuple(img_size), to_2tuple(patch_size))
    num_layers = arch_of(arch_zoo, arch)['num_layers']
    if not isinstance(layer_cfgs, Mapping) and len(layer_cfgs) != num_layers:
        raise ValueError(
            f'layer_cfgs has {len(layer_cfgs)} entries, there are {num_layers} layers: give one for each, '
            'or one dict for all'
        )
    indices = [out_indices] if isinstance(out_indices, int) else out_indices
    if any(not -num_layers <= i < num_layers for i in indices):
        raise ValueError(
            f'out_indices={out_indices} names a layer that is not in [-{num_layers}, {num_layers - 1}]'
        )
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate={drop_path_rate} is not in [0, 1)')
    if not -1 <= frozen_stages <= num_layers:
        raise ValueError(f'frozen_stages={frozen_stages} is not in [-1, {num_layers}], the number of layers')
    if not with_cls_token:
        raise ValueError('DeiT always has a class token: with_cls_token=False is VisionTransformer')


def cuts_off(patch_cfg: Mapping) -> bool:
    """Whether the convolution of ``patch_cfg`` cuts off what fills no patch."""
    return not isinstance(patch_cfg.get('padding', 'corner'), str)


def arch_of(arch_zoo: Mapping[str, dict], arch: str | dict) -> dict:
    """What an ``arch`` stands for, as :func:`sizes` gives it.

    Args:
        arch_zoo (Mapping[str, dict]): The known architectures.
        arch (str | dict): The name of one, in any case, or one.

    Raises:
        ValueError: If it is unknown, or not a whole one.
    """
    keys = sizes(1, 1).keys()
    if isinstance(arch, dict):
        if missing := keys - arch.keys():
            raise ValueError(f'arch={arch} lacks {sorted(missing)}; a dict needs {sorted(keys)}')
        if arch['embed_dims'] % arch['num_heads']:
            raise ValueError(f'arch={arch}: embed_dims is not a multiple of num_heads')
        return arch
    if not isinstance(arch, str) or arch.lower() not in arch_zoo:
        raise ValueError(
            f'arch={arch!r} is unknown: choose one of {sorted(arch_zoo)}, or give a dict with {sorted(keys)}'
        )
    return arch_zoo[arch.lower()]


def check_fit(name: str, size: Sequence[int], patch: Sequence[int]):
    """Check that patches fill an image.

    Args:
        name (str): Of the image, for the message.
        size (Sequence[int]): Its height and width, in pixels.
        patch (Sequence[int]): Those of a patch.

    Raises:
        ValueError: If they do not.
    """
    if any(s < p or s % p for s, p in zip(size, patch)):
        raise ValueError(
            f'{name} {tuple(size)} (height, width) is not a multiple of '
            f'patch_size {tuple(patch)}: resize or pad the image, or have what fills no patch cut off, '
            'patch_cfg=dict(padding=0)'
        )
