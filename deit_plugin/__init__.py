"""DeiT for mmpretrain: importing this package registers all its parts.

What the import changes for others, each in one place:

- Names in mmpretrain's registries, and an mmengine file backend ``atomic_local``.
- mmengine's ``CheckpointLoader`` (``checkpoints.loaders``): local files and downloads are read as data,
  without running code, by every scheme; mmengine's own checkpoints can be read on torch >= 2.6; and so
  can safetensors, HDF5, shards and transformers' folders, for which mmengine has no reader. A download
  with a hash in its name must have that hash, a file with checksums must match them, one that asks torch for
  more than tensors, numbers, text and logs is refused, and ``meta['config']``, which mmengine would run, is
  left out. Any other file reads as before.
- torch's list of types that ``torch.load(weights_only=True)`` admits: mmengine's logs (numbers, arrays
  of numbers) and ``argparse.Namespace``, which hold no code, are added to it.
- mmpretrain's model hub (``apis.hub``): the variants' names. A name that is there stays what it is.

No module, optimizer or data set of another package behaves differently.
"""

try:
    import mmcv  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'deit_plugin needs mmcv, which mmpretrain does not install by itself: '
        '`pip install mmcv-lite` (or the full `mmcv`, if its operators are '
        'needed)'
    ) from error

from .checkpoints import loaders
from .version import __version__

try:
    from .datasets import *
    from .engine import *
    from .models import *
except KeyError as error:  # mmengine's, for a name that is registered already
    raise ImportError(
        f'deit_plugin cannot register its parts: {error.args[0]}. Two packages that are imported have a '
        'class of that name: import only one of them'
    ) from error
from .apis import hub

loaders.register()
hub.register()

__all__ = ['__version__']
