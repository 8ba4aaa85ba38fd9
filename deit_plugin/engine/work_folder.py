"""The folder in which a training runs: one training at a time, and the checkpoints that are its own."""

import json
import logging
import os
import os.path as osp
import re

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from ..checkpoints.atomic import PARTIAL, lock, write_whole
from ..json_file import read_json

PATIENCE = 30.0  # seconds that the workers of a killed training may hold the lock


class WorkFolder:
    """A work folder of mmengine, with a list of what trainings wrote there (``.training.json``).

    A checkpoint says what its run may remove, but a checkpoint can be anybody's. This list is the run's own.

    Args:
        path (str): The folder.
    """

    def __init__(self, path: str):
        self.path = path
        self._list = osp.join(path, '.training.json')

    def _read(self) -> dict:
        try:
            content = read_json(self._list)
        except (OSError, ValueError):
            content = {}
        names = content.get('checkpoints') if isinstance(content, dict) else []
        configs = content.get('configs') if isinstance(content, dict) else {}
        return dict(
            checkpoints=[str(name) for name in names] if isinstance(names, list) else [],
            configs=dict(configs) if isinstance(configs, dict) else {},
        )

    def _write(self, content: dict):
        write_whole(self._list, json.dumps(content).encode())

    def lock(self, config: str | None = None) -> FileLock | None:
        """Take the folder for this process and its workers.

        Args:
            config (str, optional): The file of the config, which mmengine has written there already.

        Returns:
            FileLock | None: To be released; None on a file system without locks.

        Raises:
            RuntimeError: If another training runs in it. Its config is put back.
        """
        os.makedirs(self.path, exist_ok=True)
        try:
            # Of this process there is one: a training that failed in a notebook may be started again.
            held = lock(osp.join(self.path, '.training.lock'), PATIENCE, is_singleton=True)
        except Timeout:
            before = self._read()['configs'].get(osp.basename(config or ''))
            if config and isinstance(before, str):
                write_whole(config, before.encode())
            raise RuntimeError(
                f'Another training runs in {self.path}: wait for its end, or choose another --work-dir'
            ) from None
        if config and osp.isfile(config):
            with open(config, encoding='utf-8') as file:
                self._write(dict(self._read(), configs={osp.basename(config): file.read()}))
        return held

    def mend_pointer(self):
        """Where the folder was moved, let ``last_checkpoint`` name the file that came along.

        Raises:
            ValueError: If it is no file, such as a pipe, which keeps its reader waiting.
        """
        pointer = osp.join(self.path, 'last_checkpoint')
        if not osp.lexists(pointer):
            return
        if not osp.isfile(pointer):
            raise ValueError(
                f'{pointer} is not a file. Remove it, and resume from a checkpoint: --resume FILE'
            )
        with open(pointer, encoding='utf-8', errors='surrogateescape') as file:
            named = file.read().strip()
        here = osp.join(self.path, osp.basename(named))
        if not osp.exists(named) and osp.isfile(here):
            write_whole(pointer, os.fsencode(here))

    def add(self, *names: str):
        """Note checkpoints that are written."""
        if not names:
            return
        content = self._read()
        if new := [name for name in names if name not in content['checkpoints']]:
            content['checkpoints'] += new
            self._write(content)

    def start_anew(self):
        """Take what is there for another training's, which is put aside and not replaced."""
        if (content := self._read())['checkpoints']:
            self._write(dict(content, checkpoints=[]))

    def forget(self, name: str):
        """Note a checkpoint that is removed."""
        content = self._read()
        if name in content['checkpoints']:
            content['checkpoints'].remove(name)
            self._write(content)

    def keep_of_others(self, name: str):
        """Put a file aside that this training did not write, before one of that name is written."""
        path = osp.join(self.path, name)
        if '://' in path or not osp.lexists(path) or self.wrote(name):
            return
        stem, end = osp.splitext(path)
        aside = next(p for i in range(1, 10**6) if not osp.lexists(p := f'{stem}.earlier{i}{end}'))
        os.rename(path, aside)
        print_log(f'{path} is not of this training. It is kept as {aside}', 'current', logging.WARNING)

    def wrote(self, name: str) -> bool:
        """Whether this training wrote a checkpoint of this name, or the one that it goes on with."""
        return name in self._read()['checkpoints']


def remove_partial(folder: str):
    """Remove what killed writes left there."""
    for name in os.listdir(folder) if osp.isdir(folder) else ():
        if re.fullmatch(rf'.+\.\w{{8}}{re.escape(PARTIAL)}', name):
            os.remove(osp.join(folder, name))
