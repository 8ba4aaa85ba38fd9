"""The start of a training: listing the images, and what each process keeps of the list.

    python tests/benchmarks/listing.py --files 1281167
    python tests/benchmarks/listing.py --files 1281167 --processes 8

Each in processes of its own, as many as a node has GPUs, on a folder of 1000 classes with empty files; they
take turns, the figures are medians. The time is that of the slowest process, the CPU time that of all, memory
what one grew by; the fingerprint is that of recorded labels, of the classes here.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = """
import json, resource, sys, time, torch.distributed
folder, rank, processes = sys.argv[1], *map(int, sys.argv[2:])
if processes > 1:
    meeting = dict(init_method=f'file://{folder}/group', rank=rank, world_size=processes)
    torch.distributed.init_process_group('gloo', **meeting)
def grown():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 1e6
"""
LISTED = """
if processes > 1:
    torch.distributed.barrier()
before, start, spent = grown(), time.perf_counter(), time.process_time()
dataset = make()
found = [time.perf_counter() - start, time.process_time() - spent, grown() - before]
"""
HASHED = """
from deit_plugin.teacher_cache.fingerprint import dataset_listing_hash
start = time.perf_counter()
dataset_listing_hash(dataset)
print(json.dumps([*found, time.perf_counter() - start]))
"""
UNHASHED = 'print(json.dumps([*found, None]))'
WAYS = {
    'ImageNet1k': (
        "import deit_plugin.datasets as d\nmake = lambda: d.ImageNet1k(data_root=folder, split='train')",
        HASHED,
    ),
    "mmpretrain's ImageNet": (
        'import deit_plugin, mmpretrain.datasets as d\n'
        "make = lambda: d.ImageNet(data_root=folder, split='train')",
        HASHED,
    ),
    "torchvision's ImageFolder": (
        "import torchvision.datasets as d\nmake = lambda: d.ImageFolder(folder + '/train')",
        UNHASHED,
    ),
    "timm's create_dataset": (
        "import timm.data as d\nmake = lambda: d.create_dataset('', root=folder + '/train')",
        UNHASHED,
    ),
}


def measure(way, root, processes):
    """Seconds, CPU seconds, megabytes, and seconds of the fingerprint."""
    imports, after = WAYS[way]
    script = COMMON + imports + LISTED + after
    Path(root, 'group').unlink(missing_ok=True)
    running = [
        subprocess.Popen(
            [sys.executable, '-c', script, root, str(rank), str(processes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(processes)
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    seconds, spent, megabytes, hashed = zip(*found)
    return max(seconds), sum(spent), statistics.median(megabytes), hashed[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--files', type=int, default=100_000)
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for label in range(1000):
            folder = Path(root, 'train', f'n{label:08}')
            folder.mkdir(parents=True)
            for i in range(label, args.files, 1000):
                (folder / f'n{label:08}_{i}.JPEG').touch()
        turns = [{way: measure(way, root, args.processes) for way in WAYS} for _ in range(args.rounds)]
    print('| | listing, s | CPU, s | kept, MB | fingerprint, s |')
    print('|---|---|---|---|---|')
    for way in WAYS:
        columns = zip(*[turn[way] for turn in turns])
        cells = ['-' if None in c else f'{statistics.median(c):.2f}' for c in columns]
        print(f'| {way} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
