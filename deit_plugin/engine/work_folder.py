"""The folder in which a training runs: one training at a time, and the checkpoints that are its own."""

import json
import os
import os.path as osp
import re

from filelock import FileLock, Timeout

from ..checkpoints.atomic import PARTIAL, lock, write_whole

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
            with open(self._list, encoding='utf-8') as file:
                content = dict(json.load(file))
        except (OSError, ValueError, TypeError):
            content = {}
        names = content.get('checkpoints')
        content['checkpoints'] = [str(name) for name in names] if isinstance(names, list) else []
        return content

    def _write(self, content: dict):
        write_whole(self._list, json.dumps(content).encode())

    def lock(self, config: str) -> FileLock | None:
        """Take the folder for this process and its workers.

        Args:
            config (str): The file of the config, which mmengine has written there already.

        Returns:
            FileLock | None: To be released; None on a file system without locks.

        Raises:
            RuntimeError: If another training runs in it. Its config is put back.
        """
        try:
            # Of this process there is one: a training that failed in a notebook may be started again.
            held = lock(osp.join(self.path, '.training.lock'), PATIENCE, is_singleton=True)
        except Timeout:
            for name, text in self._read().get('configs', {}).items():
                if osp.basename(name) == name:
                    write_whole(osp.join(self.path, name), text.encode())
            raise RuntimeError(
                f'Another training runs in {self.path}: wait for its end, or choose another --work-dir'
            ) from None
        content = self._read()
        if osp.isfile(config):
            with open(config, encoding='utf-8') as file:
                content['configs'] = {osp.basename(config): file.read()}
        self._write(content)
        return held

    def mend_pointer(self):
        """Where the folder was moved, let ``last_checkpoint`` name the file that came along."""
        pointer = osp.join(self.path, 'last_checkpoint')
        if not osp.isfile(pointer):
            return
        with open(pointer, encoding='utf-8') as file:
            named = file.read().strip()
        here = osp.join(self.path, osp.basename(named))
        if not osp.exists(named) and osp.isfile(here):
            write_whole(pointer, here.encode())

    def add(self, *names: str):
        """Note checkpoints that are written."""
        content = self._read()
        if new := [name for name in names if name not in content['checkpoints']]:
            content['checkpoints'] += new
            self._write(content)

    def forget(self, name: str):
        """Note a checkpoint that is removed."""
        content = self._read()
        if name in content['checkpoints']:
            content['checkpoints'].remove(name)
            self._write(content)

    def wrote(self, name: str) -> bool:
        """Whether a training in this folder wrote a checkpoint of this name."""
        return name in self._read()['checkpoints']


def remove_partial(folder: str):
    """Remove what killed writes left there."""
    for name in os.listdir(folder) if osp.isdir(folder) else ():
        if re.fullmatch(rf'.+\.\w{{8}}{re.escape(PARTIAL)}', name):
            os.remove(osp.join(folder, name))
