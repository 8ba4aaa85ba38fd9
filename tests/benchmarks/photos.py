"""Images for the benchmarks, and the machine they run on."""

import io
import os
import os.path as osp
import platform
import random

import cv2
import mmpretrain
import PIL
import timm
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_image

from deit_plugin.datasets import jpeg

WIDTH, HEIGHT = 500, 375


def crops(number):
    """As many different images of the size, from two photographs."""
    photos = [Image.fromarray(load_sample_image(name)) for name in ('china.jpg', 'flower.jpg')]
    for i in range(number):
        photo = photos[i % 2]
        width = random.randint(WIDTH, photo.height * 4 // 3)
        height = width * 3 // 4
        left = random.randint(0, photo.width - width)
        top = random.randint(0, photo.height - height)
        yield photo.resize((WIDTH, HEIGHT), Image.BICUBIC, (left, top, left + width, top + height))


def encode(image):
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


def write_images(folder, number, classes=2):
    """JPEGs in ``folder/train``, as many for each class."""
    for i, image in enumerate(crops(number)):
        os.makedirs(osp.join(folder, 'train', f'{i % classes}'), exist_ok=True)
        with open(osp.join(folder, 'train', f'{i % classes}', f'{i}.jpg'), 'wb') as file:
            file.write(encode(image))


def machine():
    """Versions and processor, in two lines."""
    versions = dict(
        timm=timm.__version__,
        mmpretrain=mmpretrain.__version__,
        torch=torch.__version__,
        torchvision=torchvision.__version__,
        Pillow=PIL.__version__,
        OpenCV=cv2.__version__,
        simplejpeg=getattr(jpeg.simplejpeg, '__version__', None),
    )
    named = ', '.join(f'{name} {version}' for name, version in versions.items())
    threads = f'{torch.get_num_threads()} thread(s)'
    return f'{named}\n{cpu()}, {torch.backends.cpu.get_cpu_capability()}, {threads}'


def cpu():
    if osp.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            for line in file:
                if line.startswith('model name'):
                    return line.split(':')[1].strip()
    return platform.processor() or platform.machine()
