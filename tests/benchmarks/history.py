"""What mmengine's history of logged scalars costs, with HistoryHook and without.

    python tests/benchmarks/history.py

The time of adding nine scalars, as an iteration of the recipe logs them, at so many iterations, and their
size in a checkpoint. Both take turns; the figures are medians.
"""

import argparse
import io
import statistics
import time

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from deit_plugin.engine.hooks.history import KEPT

SCALARS = 9


def buffers(iteration, bounded):
    """As they are after so many iterations."""
    made = []
    for _ in range(SCALARS):
        values = np.zeros(min(iteration, KEPT) if bounded else iteration)
        buffer = HistoryBuffer(max_length=KEPT if bounded else 1_000_000)
        buffer._log_history, buffer._count_history = values, np.ones_like(values)
        made.append(buffer)
    return made


def milliseconds(made, times):
    start = time.perf_counter()
    for _ in range(times):
        for buffer in made:
            buffer.update(0.5)
    return 1e3 * (time.perf_counter() - start) / times


def megabytes(made):
    file = io.BytesIO()
    torch.save(dict(message_hub=dict(log_scalars=dict(enumerate(made)))), file)
    return file.tell() / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7)
    rounds = parser.parse_args().rounds
    print('| iterations | mmengine, ms | HistoryHook, ms | mmengine, MB | HistoryHook, MB |')
    print('|---|---|---|---|---|')
    for iteration in (1_000, 10_000, 100_000, 375_000, 1_000_000):
        both = [buffers(iteration, bounded) for bounded in (False, True)]
        sizes = [megabytes(made) for made in both]
        turns = [[milliseconds(made, 10) for made in both] for _ in range(rounds)]
        times = [statistics.median(column) for column in zip(*turns)]
        print(
            f'| {iteration:,} | {times[0]:.3f} | {times[1]:.3f} | {sizes[0]:.1f} | {sizes[1]:.1f} |',
            flush=True,
        )


if __name__ == '__main__':
    main()
