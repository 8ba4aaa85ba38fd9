"""The command line: it answers at once, and every option is explained."""

import argparse
import subprocess
import sys

import pytest
from conftest import CONFIGS

from deit_plugin.commands import COMMANDS
from deit_plugin.version import __version__


@pytest.mark.parametrize('args', [['--help'], ['--version'], ['predict', '--help']])
def test_it_answers_without_importing_torch(args):
    command = [sys.executable, '-X', 'importtime', '-m', 'deit_plugin', *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CONFIGS.parent, check=True)
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert 'deit_plugin.commands' in imported
    assert not imported & {'torch', 'mmengine', 'mmpretrain', 'timm', 'numpy', 'matplotlib'}
    if args == ['--version']:
        assert done.stdout.strip() == __version__
    if args == ['--help']:
        for command in COMMANDS:
            assert command.__name__.rpartition('.')[2] in done.stdout.split()


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.__name__.rpartition('.')[2])
def test_every_option_has_a_help_text_and_its_default(command):
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    command.add_arguments(parser)
    for action in parser._actions:
        assert action.help, action.dest
        shown = parser._get_formatter()._expand_help(action)
        if action.option_strings and action.nargs != 0 and not action.required:
            told = f'default: {action.default}' in shown
            assert told or action.default is None, action.dest
