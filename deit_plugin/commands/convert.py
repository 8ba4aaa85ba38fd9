"""Write a checkpoint of a DeiT, or of another student, as another library loads it."""

from ..checkpoints.formats import FORMATS


def add_arguments(parser):
    """Of the command."""
    parser.add_argument(
        'source',
        metavar='SRC',
        help='a checkpoint of facebookresearch/deit, timm, transformers, mmpretrain or deit_plugin: file, '
        'folder or address; of a student of timm that of its training, or with --config',
    )
    parser.add_argument('target', metavar='DST', help='a file; for transformers a folder')
    parser.add_argument('--to', required=True, choices=FORMATS, help='the library')
    parser.add_argument(
        '--ema', action='store_true', help='take the moving average of a file that holds both'
    )
    parser.add_argument('--num-heads', type=int, help='attention heads, where the checkpoint does not tell')
    parser.add_argument(
        '--fuse-heads',
        action='store_true',
        help='of a student that is no DeiT, such as LeViT: one head that gives the mean of both',
    )
    parser.add_argument(
        '--config', help='the name of a variant, or a config file, where the checkpoint does not record it'
    )
    parser.add_argument('--force', action='store_true', help='replace what is there')


def run(**options) -> int:
    """Convert."""
    from ..apis.convert import convert

    convert(**options)
    print(f'Written for {options["to"]}: {options["target"]}')
    return 0
