"""The command ``deit-plugin``."""

import argparse
import pickle
import sys

from mmengine.config import DictAction

from .apis.convert import convert
from .apis.evaluate import evaluate
from .apis.label import label
from .checkpoints.names import FORMATS
from .version import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    parser = argparse.ArgumentParser('deit-plugin')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    _add_convert(commands)
    _add_evaluate(commands)
    _add_label(commands)
    options = vars(parser.parse_args(arguments))
    try:
        return options.pop('run')(**options)
    except (ValueError, OSError, ModuleNotFoundError, pickle.UnpicklingError) as error:
        print(f'deit-plugin: {error}', file=sys.stderr)
        return 2


def _add_convert(commands):
    command = commands.add_parser(
        'convert',
        help='write a DeiT checkpoint as another library loads it',
        description='Write a DeiT checkpoint as another library loads it.',
    )
    command.add_argument(
        'source',
        metavar='SRC',
        help='a checkpoint of facebookresearch/deit, timm, transformers, '
        'mmpretrain or deit_plugin: file, folder or address',
    )
    command.add_argument('target', metavar='DST', help='a file; for transformers a folder')
    command.add_argument('--to', required=True, choices=FORMATS)
    command.add_argument(
        '--ema', action='store_true', help='take the moving average of a file that holds both'
    )
    command.add_argument('--num-heads', type=int, help='attention heads, where the checkpoint does not tell')
    command.add_argument('--force', action='store_true', help='replace what is there')
    command.set_defaults(run=_convert)


def _add_evaluate(commands):
    command = commands.add_parser(
        'evaluate',
        help='published and measured accuracy of the variants',
        description='Evaluate variants on a folder of images.',
    )
    command.add_argument(
        'names',
        nargs='*',
        metavar='NAME',
        help='variants (default: all whose weights are published), or paths of configs',
    )
    command.add_argument(
        '--data', required=True, help='a folder with `val/`, or with one folder of images a class'
    )
    command.add_argument(
        '--weights',
        help='a folder with the weights, by the published file names or as '
        'NAME.pth, NAME.safetensors, NAME/ ...; without it they are '
        'downloaded',
    )
    command.add_argument('--batch-size', type=int, default=64)
    command.add_argument('--workers', type=int, default=4)
    command.add_argument('--json', dest='output', metavar='FILE', help='for the results')
    command.add_argument('--force', action='store_true', help='replace that file')
    command.add_argument(
        '--skip-broken', action='store_true', help='look for broken images first, and leave them out'
    )
    command.set_defaults(run=_evaluate)


def _add_label(commands):
    command = commands.add_parser(
        'label',
        help='record a teacher for a training, without the student',
        description='Record the answers of the teacher to all batches of a training. '
        'On several GPUs: torchrun --nproc_per_node 8 -m deit_plugin label '
        'CONFIG --launcher pytorch',
    )
    command.add_argument('config', help='of the training, with `model.teacher_labels`')
    command.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='changes of the config, such as model.teacher_labels.path=FOLDER',
    )
    command.add_argument('--work-dir', default='work_dirs/label')
    command.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    command.set_defaults(run=_label)


def _convert(**options) -> int:
    convert(**options)
    print(f'Written for {options["to"]}: {options["target"]}')
    return 0


def _evaluate(**options) -> int:
    results = evaluate(**options)
    return 1 if any('error' in result for result in results) else 0


def _label(**options) -> int:
    label(**options)
    return 0


if __name__ == '__main__':
    sys.exit(main())
