"""Run a script of mmpretrain, such as browse_dataset, on configs and checkpoints of this package.

As `mim run mmpretrain NAME ...`, with this package imported, and with a config for your own images completed
from these: see docs/tools.md.
"""

import argparse


def add_arguments(parser):
    """Of the command."""
    parser.add_argument('name', metavar='NAME', help='of the script, such as publish_model')
    parser.add_argument('arguments', nargs=argparse.REMAINDER, metavar='...', help='its arguments')


def run(name: str, arguments: list[str]) -> int:
    """Run it."""
    from ..apis.tools import run_tool

    run_tool(name, arguments)
    return 0
