"""What happens to a batch before the model, beside timm and torchvision on Pillow.

    python tests/benchmarks/device.py
    python tests/benchmarks/device.py --device cuda --batch-size 256

RandAugment, normalisation, erasing and mixing of a batch of 224 x 224, the
same images for both, which take turns; the figures are medians. Then DeiT
III's 3-Augment and colour jitter alone, beside torchvision's and Pillow's as
its reference puts them together. The last column is the share in a step of
DeiT-B distilled without a teacher, on the same device. The peers' work is
divided among the loader's processes, ours is on the device.
"""

import argparse
import os.path as osp
import random
import statistics

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from PIL import Image, ImageFilter, ImageOps
from sklearn.datasets import load_sample_images
from step import CONFIGS, autocast, clock
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torchvision import transforms

from deit_plugin.models.three_augment import ThreeAugment


def photos(number):
    """Crops of photographs, uint8 (N, 3, 224, 224)."""
    random = np.random.RandomState(0)
    images = load_sample_images().images
    crops = []
    for i in range(number):
        image = images[i % len(images)]
        top, left = (random.randint(s - 224) for s in image.shape[:2])
        crops.append(image[top : top + 224, left : left + 224])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()


def three_augment_of_torchvision():
    """As facebookresearch/deit at ``7e160fe`` has it (augment.py)."""

    def blur(image):
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    one = [transforms.Grayscale(3), transforms.Lambda(ImageOps.solarize), transforms.Lambda(blur)]
    return transforms.Compose([transforms.RandomChoice(one), transforms.ColorJitter(0.3, 0.3, 0.3)])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', default='float32')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--step-batch-size', type=int, default=8)
    parser.add_argument('--rounds', type=int, default=7)
    args = parser.parse_args()
    cfg = Config.fromfile(osp.join(CONFIGS, 'deit_base_distilled.py'))
    cfg.model.pop('teacher')
    cfg.model.head.loss.mode = 'none'
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model).to(args.device).train()
    images = photos(args.batch_size)
    samples = [DataSample().set_gt_label(i) for i in range(len(images))]
    pillow = [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images]
    on_device = images.to(args.device)
    augment = rand_augment_transform(
        'rand-m9-mstd0.5-inc1', dict(translate_const=100, img_mean=(124, 116, 104))
    )
    three_augment, three_augment_on_pillow = ThreeAugment(), three_augment_of_torchvision()
    erase = RandomErasing(0.25, mode='pixel', max_count=1, device='cpu')
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (cfg.data_preprocessor.mean, cfg.data_preprocessor.std)
    )

    def ours():
        model.data_preprocessor(dict(inputs=on_device, data_samples=samples), training=True)

    def rand_augment():
        model.data_preprocessor._operations(on_device)

    def timms():
        for image in pillow:
            try:
                image = augment(image)
            except ValueError:
                pass  # timm's Posterize with 0 bits on Pillow 13
            array = torch.from_numpy(np.array(image)).permute(2, 0, 1)
            erase((array.float() - mean) / std)

    def torchvisions():
        for image in pillow:
            three_augment_on_pillow(image)

    def step():
        few = torch.randn(args.step_batch_size, 3, 224, 224, device=args.device)
        target = torch.rand(len(few), 1000, device=args.device).softmax(1)
        with autocast(args):
            losses = model.loss(few, [DataSample().set_gt_score(t) for t in target])
        model.parse_losses(losses)[0].backward()
        model.zero_grad()

    functions = dict(timm=timms, ours=ours, rand_augment=rand_augment, step=step)
    functions.update(torchvision=torchvisions, three_augment=lambda: three_augment(on_device))
    times = {name: [] for name in functions}
    for i in range(args.rounds + 1):
        for name, function in functions.items():
            seconds = clock(function)
            if i:  # the first warms up
                size = args.step_batch_size if name == 'step' else args.batch_size
                times[name].append(1e3 * seconds / size)
    ms = {name: statistics.median(values) for name, values in times.items()}
    print(
        f'torch {torch.__version__}, {args.device}, '
        f'{torch.get_num_threads()} threads, {args.precision}, batch '
        f'{args.batch_size}, median of {args.rounds} rounds\n'
    )
    print('| | ms an image | beside the peer | of a step of DeiT-B |\n|---|---|---|---|')
    rows = (
        ('timm', 'timm on Pillow, without mixing', 'timm'),
        ('ours', 'ours, all of it', 'timm'),
        ('rand_augment', 'of which RandAugment', 'timm'),
        ('torchvision', '3-Augment of torchvision on Pillow', 'torchvision'),
        ('three_augment', 'our 3-Augment', 'torchvision'),
    )
    for name, words, peer in rows:
        share = 100 * ms[name] / (ms[name] + ms['step'])
        print(f'| {words} | {ms[name]:.2f} | {ms[name] / ms[peer]:.2f} | {share:.1f} % |')


if __name__ == '__main__':
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        main()
