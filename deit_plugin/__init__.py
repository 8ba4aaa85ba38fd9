"""DeiT for mmpretrain: importing this package registers all its parts.

What the import changes for others, each in one place:

- Names in mmpretrain's registries, and in mmengine's a file backend ``atomic_local`` and the function
  ``labels_collate``.
- mmengine's ``CheckpointLoader`` (``checkpoints.loaders``): local files and downloads are read as data,
  without running code, by every scheme; mmengine's own checkpoints can be read on torch >= 2.6; and so
  can safetensors, HDF5, shards and transformers' folders, for which mmengine has no reader. A download
  with a hash in its name must have that hash, a file with checksums must match them, one that asks torch for
  more than tensors, numbers, text and logs is refused, and ``meta['config']``, which mmengine would run, is
  left out. Any other file reads as before.
- torch's list of types that ``torch.load(weights_only=True)`` admits: mmengine's logs (numbers, arrays
  of numbers) and ``argparse.Namespace``, which hold no code, are added to it.
- mmpretrain's model hub (``apis.hub``): the variants' names. A name that is there stays what it is.
- Where mmpretrain's multi-modal models cannot be imported, beside transformers 5 and pycocotools, its
  placeholders for them are taken, or nothing of mmpretrain could be imported (``upstream``).

No module, optimizer or data set of another package behaves differently.
"""

import os.path as osp
import sys

from .version import __version__


def _asks_for_help(arguments: list[str]) -> bool:
    """Whether this is the command line, asked for nothing that needs torch."""
    command = osp.basename(arguments[0]) in ('deit-plugin', 'deit-plugin.exe', '-m') if arguments else False
    return command and bool({'-h', '--help', '--version'}.intersection(arguments))


if not _asks_for_help(sys.argv):
    from . import registration

__all__ = ['__version__']
