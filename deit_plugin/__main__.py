"""The command ``deit-plugin``."""

import argparse
import pickle
import sys

from .commands import COMMANDS
from .version import __version__


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status."""
    parser = argparse.ArgumentParser(
        'deit-plugin', description='DeiT for mmpretrain: checkpoints, evaluation, predictions, pictures.'
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for command in COMMANDS:
        name = command.__name__.rpartition('.')[2]
        summary, _, more = command.__doc__.partition('\n\n')
        subparser = commands.add_parser(
            name,
            help=summary[0].lower() + summary[1:].rstrip('.'),
            description=summary + '\n\n' + more,
            formatter_class=_Formatter,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    options = vars(parser.parse_args(arguments))
    try:
        return options.pop('run')(**options)
    except (ValueError, OSError, ModuleNotFoundError, pickle.UnpicklingError) as error:
        print(f'deit-plugin: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('deit-plugin: interrupted', file=sys.stderr)
        return 130


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """The description as it stands, and each option's default."""


if __name__ == '__main__':
    sys.exit(main())
