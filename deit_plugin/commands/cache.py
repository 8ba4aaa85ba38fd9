"""Decode and resize the training images of a config once, for faster reading.

A training maps their raw pixels into memory (LoadCached). Its size is told first; a run that was stopped goes
on.
"""

from .cfg_options import add_cfg_options


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('config', metavar='CONFIG', help='of the training')
    parser.add_argument(
        '--output', required=True, metavar='FOLDER', help='a new one, or that of a stopped run'
    )
    parser.add_argument('--side', type=int, default=256, help='short side in pixels; smaller images stay')
    parser.add_argument(
        '--workers', type=int, help='processes, 0 for none beside this one; without it one for each core'
    )
    parser.add_argument(
        '--broken', choices=['raise', 'skip'], default='raise', help='what is done with a broken image'
    )
    add_cfg_options(parser, 'data_root=my_images')


def run(**options) -> int:
    """Cache."""
    from ..apis.cache import cache
    from ..apis.cache_plan import size

    found = cache(**options)
    print(f'{found["images"]:,} images are in {found["output"]} ({size(found["bytes"])})')
    if found['broken']:
        print(f'{found["broken"]:,} of them are broken, and a training takes others for them')
    print(f'To train on them, in a config of yours:\n\n{found["use"]}')
    return 0
