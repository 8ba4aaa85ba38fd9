"""The blocks of docs/ecosystem.md run in this process, as new ones take seconds to start."""

import contextlib
import io
import os.path as osp
import runpy
import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest
from conftest import CONFIGS
from examples import examples
from mmengine.config import Config
from trainings import unique_name

from deit_plugin.__main__ import main
from deit_plugin.datasets.digits import write_digits

TRAIN = osp.join(osp.dirname(mmpretrain.__file__), '.mim', 'tools', 'train.py')
RUN = Path('work_dirs', 'digits_distilled_folder')
IMAGE = 'data/digits/val/3/1473.png'
# A few steps in place of minutes.
SHORT = [
    'train_cfg.max_epochs=1',
    'train_dataloader.dataset.indices=192',
    'val_dataloader.dataset.indices=64',
]
SHORT_DEMO = [*SHORT, 'param_scheduler.0.warmup_epochs=0']  # elsewhere it follows from the epochs
NO_WORKERS = [
    f'{loader}_dataloader.{option}'
    for loader in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]
# Each call writes its arguments down; bash then does the rest, such as loops and quotes.
RECORD = r"""record() { printf '%s\x1f' "$@"; printf '\x1e'; }
for name in mim deit-plugin python; do eval "$name() { record $name \"\$@\"; }"; done
"""


def example(heading: str, number: int = 0, language: str = 'python', **changes: str) -> str:
    """A block, with texts replaced that a test cannot do with.

    Args:
        heading (str): Of its section.
        number (int): Which one there.
        language (str): Of the block.
        **changes (str): Two texts each, ``old -> new``; their names are for the reader.
    """
    text = examples(heading, language)[number]
    for change in changes.values():
        old, new = change.split(' -> ')
        assert old in text, f'{old!r} is no longer in the example of {heading}'
        text = text.replace(old, new)
    return text


def python(code: str, **names) -> dict:
    """What a block leaves behind."""
    exec(compile(code, 'docs/ecosystem.md', 'exec'), names)
    return names


def commands(code: str) -> list[list[str]]:
    """The commands that a shell makes of a block, without running them."""
    done = subprocess.run(['bash', '-euc', RECORD + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split('\x1f')[:-1] for line in done.stdout.split('\x1e')[:-1]]


def run(command: list[str], *options: str) -> str:
    """Run a command here, and return what it says.

    Args:
        command (list[str]): One of :func:`commands`.
        *options (str): For its ``--cfg-options``, if it is a training.
    """
    with contextlib.redirect_stdout(io.StringIO()) as output:
        if command[0] == 'deit-plugin':
            assert main(command[1:] + _with(command, options)) == 0
        elif command[:2] == ['python', '-c']:
            python(command[2])
        elif command[:2] == ['mim', 'train']:
            name = f'experiment_name=_{unique_name()}'
            _script(TRAIN, command[3:] + _with(command, [*options, *NO_WORKERS, name]))
        else:
            raise ValueError(f'{command} cannot be run here')
    return output.getvalue()


def _with(command: list[str], options) -> list[str]:
    return [*([] if '--cfg-options' in command or not options else ['--cfg-options']), *options]


def _script(path: str, arguments: list[str]):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', [path, *arguments])
        # Formatted by yapf it takes longer than the training.
        patch.setattr(Config, 'pretty_text', property(_text))
        runpy.run_path(path, run_name='__main__')


def _text(cfg: Config) -> str:
    return ''.join(f'{name} = {value!r}\n' for name, value in cfg.to_dict().items())


def make_demo(folder: Path) -> Path:
    """The model that the examples take, trained for a moment, and the repository's configs."""
    (folder / 'configs').symlink_to(CONFIGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        digits, train = commands(example('Other packages', language='bash'))
        assert digits == ['deit-plugin', 'digits', 'data/digits']
        write_digits('data/digits')
        run(train, 'train_cfg.max_epochs=4', 'optim_wrapper.optimizer.lr=3e-3', SHORT[-1])
    return folder


def write(name: str, text: str) -> str:
    """Write a file of the document where the reader has it."""
    Path(name).write_text(text)
    return name
