"""The weights of a teacher, by name and hash."""

import os.path as osp

from ..checkpoints.downloads import content_hash, fetch, local_file


def checkpoints_of(teacher) -> list[str]:
    """The checkpoints that the config of a teacher names, those of its parts included."""
    if isinstance(teacher, (list, tuple)):
        return [name for part in teacher for name in checkpoints_of(part)]
    if not isinstance(teacher, dict):
        return []
    own = teacher.get('checkpoint')
    parts = [name for key, part in teacher.items() if key != 'checkpoint' for name in checkpoints_of(part)]
    return [own, *parts] if isinstance(own, str) else parts


def at_hand(teacher: dict) -> bool:
    """Whether a teacher's weights are on this machine, as far as its config names files."""
    names = checkpoints_of(teacher)
    return bool(names) and all(osp.exists(local_file(name)) for name in names)


def without_weights(teacher):
    """The config of a teacher without the checkpoints that it names."""
    if isinstance(teacher, dict):
        return {k: without_weights(v) for k, v in teacher.items() if k != 'checkpoint'}
    return [*map(without_weights, teacher)] if isinstance(teacher, (list, tuple)) else teacher


def teacher_weights(teacher: dict, asked: bool) -> list[dict]:
    """The names of the teacher's checkpoints and, of those at hand, the SHA-256.

    Args:
        teacher (dict): Config of the teacher.
        asked (bool): Whether the weights are needed, and downloaded.

    Raises:
        ValueError: If a part of the teacher has none.
        OSError: If they are needed and cannot be read.
    """
    for part in teacher.get('members') or [teacher]:
        if not (checkpoints_of(part) or part.get('pretrained') or part.get('init_cfg')):
            raise ValueError(
                'A teacher with random weights has nothing to teach: set `model.teacher.checkpoint`'
            )
    found = []
    for name in checkpoints_of(teacher):
        path = fetch(name) if asked else local_file(name)
        known = content_hash(path) if asked or osp.exists(path) else None
        found.append(dict(name=osp.basename(name.rstrip('/')), sha256=known))
    return found


def same_weights(stored, present: list[dict]) -> list[dict]:
    """The present weights, those that are stored ones as they are stored: a file may have another name."""
    if not isinstance(stored, list) or len(stored) != len(present):
        return present
    found = []
    for old, new in zip(stored, present):
        by = 'sha256' if new['sha256'] else 'name'
        found.append(old if isinstance(old, dict) and old.get(by) == new[by] else new)
    return found
