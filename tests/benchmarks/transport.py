"""What the main process spends on receiving a batch, by the way it was collated.

    python tests/benchmarks/transport.py

Workers send made-up images, so that they are never waited for long; the CPU time of the main process, from
the queue to the samples that the model gets, without a device. The ways take turns; the figures are medians.
"""

import argparse
import os
import statistics
import time

import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset

from deit_plugin.datasets import labels_collate

WAYS = dict(pseudo_collate=pseudo_collate, default_collate=default_collate, labels_collate=labels_collate)


class Images(Dataset):
    """As packed by the recipe's pipeline."""

    def __init__(self, side):
        self.image = torch.zeros(3, side, side, dtype=torch.uint8)

    def __len__(self):
        return 1 << 20

    def __getitem__(self, i):
        sample = DataSample(metainfo=dict(img_path=f'data/imagenet/train/n01440764/{i}.JPEG', sample_idx=i))
        return dict(inputs=self.image.clone(), data_samples=sample.set_gt_label(i % 1000))


def microseconds(collate, args, preprocessor):
    """Of an image, and the open files of the main process while it holds a batch."""
    loader = DataLoader(
        Images(args.side), args.batch_size, num_workers=args.workers, collate_fn=collate, prefetch_factor=4
    )
    batches, inputs = iter(loader), None
    next(batches)
    time.sleep(2)  # until the queue is full
    start, files = time.process_time(), 0
    for _ in range(args.workers * 4):
        batch = next(batches)
        files = max(files, len(os.listdir('/proc/self/fd')))
        inputs = batch.pop('inputs')
        preprocessor(dict(batch, inputs=torch.zeros(1, 3, 1, 1, dtype=torch.uint8)), training=True)
    spent = time.process_time() - start
    del batches, inputs
    return 1e6 * spent / (args.workers * 4 * args.batch_size), files


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--batch-size', type=int, default=256)
    parser.add_argument('--side', type=int, default=224)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    preprocessor = MODELS.build(
        dict(type='mmpretrain.DeiTDataPreprocessor', num_classes=1000, to_onehot=True)
    )
    turns = [[microseconds(way, args, preprocessor) for way in WAYS.values()] for _ in range(args.rounds)]
    print('| | us an image | open files |')
    print('|---|---|---|')
    for name, column in zip(WAYS, zip(*turns)):
        times, files = zip(*column)
        print(f'| {name} | {statistics.median(times):.1f} | {statistics.median(files):.0f} |', flush=True)


if __name__ == '__main__':
    main()
