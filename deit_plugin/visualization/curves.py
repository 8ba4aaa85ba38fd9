"""The course of a training, from what mmengine logs."""

import glob
import json
import os.path as osp


def read_scalars(work_dir: str, iterations: int) -> dict[str, list[tuple[float, float]]]:
    """All that was logged in a work folder, across resumptions.

    mmengine begins a new file, ``TIMESTAMP/vis_data/scalars.json``, at each start. What a later start repeats
    stands for what was logged before.

    Args:
        work_dir (str): The folder.
        iterations (int): Of an epoch.

    Returns:
        dict: By name pairs of epoch and value, in their order.
    """
    found: dict[str, dict[float, float]] = {}
    for path in sorted(glob.glob(osp.join(glob.escape(work_dir), '*', 'vis_data', 'scalars.json'))):
        rows = _rows(path)
        # The step of a training is its iteration, of a validation its epoch.
        placed = [(r.pop('step') / (iterations if 'iter' in r else 1), r) for r in rows]
        start = min((epoch for epoch, row in placed if 'iter' in row), default=float('inf'))
        for values in found.values():
            for epoch in [epoch for epoch in values if epoch >= start]:
                del values[epoch]
        for epoch, row in placed:
            for name, value in row.items():
                found.setdefault(name, {})[epoch] = value
    return {name: sorted(values.items()) for name, values in found.items() if values}


def _rows(path: str) -> list[dict[str, float]]:
    """The lines of a file, without those that a kill cut off."""
    rows = []
    with open(path, encoding='utf-8') as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get('step'), (int, float)):
                rows.append({name: v for name, v in row.items() if isinstance(v, (int, float))})
    return rows
