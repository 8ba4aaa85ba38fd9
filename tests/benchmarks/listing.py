"""The start of a training: listing the images, and what each process keeps of the list.

    python tests/benchmarks/listing.py --files 1281167

Each in a process of its own, on a folder of 1000 classes with empty files; they take turns, the figures are
medians. Memory is what the process grew by; the fingerprint is that of recorded labels, of the classes here.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

COMMON = """
import json, resource, sys, time
def grown():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize() / 1e6
"""
LISTED = """
before, start = grown(), time.perf_counter()
dataset = make()
seconds, megabytes = time.perf_counter() - start, grown() - before
"""
HASHED = """
from deit_plugin.teacher_cache.fingerprint import dataset_listing_hash
start = time.perf_counter()
dataset_listing_hash(dataset)
print(json.dumps([seconds, megabytes, time.perf_counter() - start]))
"""
UNHASHED = 'print(json.dumps([seconds, megabytes, None]))'
WAYS = {
    'ImageNet1k': (
        "import deit_plugin.datasets as d\nmake = lambda: d.ImageNet1k(data_root=sys.argv[1], split='train')",
        HASHED,
    ),
    "mmpretrain's ImageNet": (
        'import deit_plugin, mmpretrain.datasets as d\n'
        "make = lambda: d.ImageNet(data_root=sys.argv[1], split='train')",
        HASHED,
    ),
    "torchvision's ImageFolder": (
        "import torchvision.datasets as d\nmake = lambda: d.ImageFolder(sys.argv[1] + '/train')",
        UNHASHED,
    ),
    "timm's create_dataset": (
        "import timm.data as d\nmake = lambda: d.create_dataset('', root=sys.argv[1] + '/train')",
        UNHASHED,
    ),
}


def measure(way, root):
    imports, after = WAYS[way]
    script = COMMON + imports + LISTED + after
    done = subprocess.run([sys.executable, '-c', script, root], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--files', type=int, default=100_000)
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        for label in range(1000):
            folder = Path(root, 'train', f'n{label:08}')
            folder.mkdir(parents=True)
            for i in range(label, args.files, 1000):
                (folder / f'n{label:08}_{i}.JPEG').touch()
        turns = [{way: measure(way, root) for way in WAYS} for _ in range(args.rounds)]
    print('| | listing, s | kept, MB | fingerprint, s |')
    print('|---|---|---|---|')
    for way in WAYS:
        columns = zip(*[turn[way] for turn in turns])
        cells = ['-' if None in c else f'{statistics.median(c):.2f}' for c in columns]
        print(f'| {way} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
