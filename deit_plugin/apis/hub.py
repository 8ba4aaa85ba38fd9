"""The variants in mmpretrain's model hub."""

import logging
import os.path as osp

from mmengine.logging import print_log
from mmpretrain.apis.model import ModelHub
from modelindex.load_model_index import load

ROOT = osp.join(osp.dirname(osp.dirname(osp.abspath(__file__))), '.mim')


def register():
    """Let mmpretrain know the variants by name (``mmpretrain.get_model``).

    A name that is there already stays what it is, with a warning.
    """
    index = load(osp.join(ROOT, 'model-index.yml'))
    index.build_models_with_collections()
    for info in index.models:
        known = ModelHub._models_dict.get(info.name)
        if known is None:
            info.config = ModelHub._expand_config_path(info, ROOT)
            ModelHub._models_dict[info.name] = info
        elif not _of_ours(known):
            print_log(
                f"mmpretrain's hub has a model {info.name!r} already, of {known.filepath}: by this name "
                "it stays that one. deit_plugin's is the config "
                f'{ModelHub._expand_config_path(info, ROOT)}',
                logger='current',
                level=logging.WARNING,
            )


def _of_ours(info) -> bool:
    return str(info.filepath).startswith(ROOT)


def variants(published_weights: bool = False) -> list[str]:
    """The names of the variants, or of those whose weights are published."""
    return [
        name
        for name, info in ModelHub._models_dict.items()
        if _of_ours(info) and (info.weights or not published_weights)
    ]
