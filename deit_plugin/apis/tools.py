"""mmpretrain's scripts, with this package imported and its configs as they expect them."""

import argparse
import inspect
import os.path as osp
import runpy
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mmpretrain
from mmengine.config import Config, DictAction

from ..datasets.simple_crop import CROP_NAMES
from .configs import is_for_own_images, read_data_config, type_name

FOLDER = osp.join(osp.dirname(mmpretrain.__file__), '.mim', 'tools')


def run_tool(name: str, arguments: Sequence[str] | None = None):
    """Run a script of mmpretrain, as ``mim run deit_plugin NAME`` does.

    - Checkpoints are read as everywhere in this package, which ``publish_model`` needs on torch >= 2.6.
    - A config for one's own images is completed from these.
    - ``verify_dataset`` knows the configs' own transforms, and judges by Pillow as these do.
    - ``browse_dataset`` runs on matplotlib 3.11.

    Args:
        name (str): The script's, without its folder and ``.py``.
        arguments (Sequence[str], optional): Those of the command line. Defaults to this process's.

    Raises:
        FileNotFoundError: If mmpretrain has no such script.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    scripts = {path.stem: str(path) for path in sorted(Path(FOLDER).rglob('*.py'))}
    script = scripts.get(name.removesuffix('.py'))
    if script is None:
        names = ', '.join(sorted(scripts))
        raise FileNotFoundError(
            f'mmpretrain {mmpretrain.__version__} has no script {name!r}: choose from {names}'
        )
    before, path_before = sys.argv, list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        arguments = _with_complete_config(name, arguments, folder)
        if name == 'browse_dataset':
            _accept_calls_without_renderer()
        sys.argv = [script, *arguments]
        sys.path.insert(0, osp.dirname(script))  # as Python does
        try:
            runpy.run_path(script, run_name='__main__')
        finally:
            sys.argv, sys.path[:] = before, path_before


def _with_complete_config(name: str, arguments: list[str], folder: str) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    known, rest = parser.parse_known_args(arguments)
    place = next((i for i, text in enumerate(rest) if text.endswith('.py') and osp.isfile(text)), None)
    if place is None:
        return arguments
    if name != 'verify_dataset' and not is_for_own_images(Config.fromfile(rest[place])):
        return arguments
    cfg = read_data_config(rest[place], known.cfg_options)
    if name == 'verify_dataset':
        _load_as_mmpretrain(cfg)
    rest[place] = osp.join(folder, osp.basename(rest[place]))
    cfg.dump(rest[place])
    return rest  # the options are in it


def _load_as_mmpretrain(cfg: Config):
    """The script looks for a step of mmpretrain's name, and refuses data in memory, which have none."""
    for phase in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{phase}_dataloader') or {}).get('dataset') or {}
        for i, step in enumerate(dataset.get('pipeline') or []):
            if type_name(dataset) != 'Digits' and type_name(step) in (*CROP_NAMES, 'LoadImage'):
                dataset['pipeline'][i] = dict(type='LoadImageFromFile', imdecode_backend='pillow')


def _accept_calls_without_renderer():
    """matplotlib's private function has got an argument that the script does not know."""
    try:
        from matplotlib import _tight_bbox
    except ImportError:  # before 3.6
        return
    own = _tight_bbox.adjust_bbox
    if 'renderer' not in inspect.signature(own).parameters:
        return

    def adjust_bbox(figure, box, renderer=None, **kwargs):
        return own(figure, box, renderer or figure.canvas.get_renderer(), **kwargs)

    _tight_bbox.adjust_bbox = adjust_bbox
