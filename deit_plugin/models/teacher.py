"""The teacher."""

import copy
import logging

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmpretrain.models import BaseClassifier, ClsDataPreprocessor, TimmClassifier
from mmpretrain.registry import MODELS

from ..checkpoints.strict import load_strict
from .image_size import another_size, image_size_of_config
from .loaded import keep_weights
from .recorded import num_classes_of_config


class Teacher:
    """A frozen classifier, built when it is first asked.

    Deliberately not an ``nn.Module``: it stays out of the ``state_dict``, the optimizer and DDP. A copy
    (a moving average copies the whole model) or a pickle holds the config alone. A model that is only
    tested or exported never asks it, so it needs no weights then.

    Args:
        cfg (dict): The config of any classifier of mmpretrain
            (``TimmClassifier`` included), with two further keys:

            - ``checkpoint`` (str, optional): Its weights, a path or an
              address; every parameter must be in it.
            - ``data_preprocessor`` (dict, optional): ``mean``, ``std`` (in
              levels of 0 to 255, in the order of the channels) and ``to_rgb``
              of the images it was trained on. What is absent is as the
              student has it; a timm model brings its own mean and std.
        student_preprocessor (ClsDataPreprocessor): Where the normalisation of
            the student's images is read.
    """

    def __init__(self, cfg: dict, student_preprocessor: nn.Module):
        if not isinstance(cfg, dict) or 'type' not in cfg:
            raise ValueError(
                'teacher must be the config of a classifier, such as '
                "dict(type='TimmClassifier', model_name='regnety_160', "
                f"checkpoint='FILE'), but is {cfg!r}"
            )
        self.cfg = copy.deepcopy(cfg)
        self.student_preprocessor = student_preprocessor
        self.model: BaseClassifier | None = None
        self.has_answered = False
        self.compile_kwargs: dict | None = None

    @property
    def num_classes(self) -> int | None:
        """The number of classes, as far as the config tells."""
        return num_classes_of_config(self.cfg)

    def __getstate__(self) -> dict:
        return {**self.__dict__, 'model': None, 'has_answered': False}

    @torch.inference_mode()
    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        images = images.float()  # no copy, unless the student is not float32
        if self.flip:
            images = images.flip(1)
        if self.scale is not None:
            images = images * self.scale + self.shift
        if images.device.type == 'cuda':  # as the convolutions have it
            images = images.contiguous(memory_format=torch.channels_last)
        logits = self._forward(images)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
            raise ValueError(
                f'The teacher {self.cfg["type"]} gives no logits (B, K), but '
                f'{type(logits).__name__}: it needs a classification head'
            )
        return logits

    def _forward(self, images: torch.Tensor):
        try:
            logits = self.model(images, mode='tensor')
        except (AssertionError, RuntimeError) as error:
            if self.has_answered or isinstance(error, torch.OutOfMemoryError):
                raise
            who = f'the teacher {self.cfg.get("model_name") or self.cfg["type"]}'
            text = another_size(image_size_of_config(self.cfg), images, who) or (
                f'T{who[1:]} has no answer to images of {tuple(images.shape[-2:])} (height, width): '
                f'{str(error).rstrip(".")}. If it takes another size, crop the images to that, or set its '
                '`img_size`, with weights of that size'
            )
            raise ValueError(text) from error
        self.has_answered = True
        return logits

    @torch.compiler.disable  # under Dynamo it could not be built, nor asked in inference mode
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The logits (B, K) for images (B, 3, H, W) as the student sees
        them."""
        if self.model is None:
            self.build()
        if self.device != images.device:
            self._to(images.device)
        # A copy: inference tensors cannot be saved for backward.
        return self._logits(images).clone()

    def _to(self, device: torch.device):
        self.model.to(device)
        if device.type == 'cuda':
            self.model.to(memory_format=torch.channels_last)
        if self.scale is not None:
            self.scale, self.shift = (self.scale.to(device), self.shift.to(device))
        self.device = device

    def build(self):
        """Build the model and load its weights."""
        cfg = copy.deepcopy(self.cfg)
        checkpoint = cfg.pop('checkpoint', None)
        # The weights that are drawn here and then replaced must not change
        # what the student draws.
        if 'members' in cfg:  # its members renormalise what the student sees
            cfg.setdefault('data_preprocessor', self._student_normalisation())
        with torch.random.fork_rng(devices=[]):
            model = MODELS.build(cfg)
            if not isinstance(model, BaseClassifier):
                raise ValueError(
                    f'teacher {cfg["type"]} is not a classifier of mmpretrain, but {type(model).__name__}'
                )
            keep_weights(model)
            if checkpoint is None:
                model.init_weights()
        if checkpoint is not None:
            load_strict(model, checkpoint)
        elif not any(cfg.get(name) for name in ('pretrained', 'init_cfg', 'members')):
            print_log(
                'The teacher has no checkpoint: its weights are random',
                logger='current',
                level=logging.WARNING,
            )
        model.eval().requires_grad_(False)
        if self.compile_kwargs is not None:
            model.compile(**self.compile_kwargs)
        self.model, self.device = model, torch.device('cpu')
        self._match_normalisation()
        print_log(
            f'Teacher: {cfg["type"]} with '
            f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M '
            f'parameters, weights from {checkpoint or "its config"}, '
            'the images '
            f'{"as the student" if self.scale is None else "renormalised"}',
            logger='current',
        )

    def _student_normalisation(self) -> dict:
        mean, std = _normalisation(self.student_preprocessor)
        return dict(mean=mean.tolist(), std=std.tolist(), to_rgb=self.student_preprocessor.to_rgb)

    def _match_normalisation(self):
        """From the student's mean and std to the teacher's, in one step."""
        student, cfg = self.student_preprocessor, self.cfg.get('data_preprocessor') or {}
        self.flip = cfg.get('to_rgb', student.to_rgb) != student.to_rgb
        mean, std = _normalisation(student)
        if self.flip:
            mean, std = mean.flip(0), std.flip(0)
        own = dict(mean=mean, std=std)
        if isinstance(self.model, TimmClassifier):
            timm_cfg = getattr(self.model.model, 'pretrained_cfg', {})
            own.update((key, 255 * torch.tensor(timm_cfg[key])) for key in own if key in timm_cfg)
        own.update((key, torch.tensor(cfg[key])) for key in own if key in cfg)
        own_mean, own_std = own['mean'], own['std']
        scale = (std / own_std).float().view(-1, 1, 1)
        shift = ((mean - own_mean) / own_std).float().view(-1, 1, 1)
        same = torch.allclose(scale, torch.ones(())) and torch.allclose(shift, torch.zeros(()), atol=1e-6)
        self.scale, self.shift = (None, None) if same else (scale, shift)


def _normalisation(preprocessor: ClsDataPreprocessor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std, each (3, ), in levels of 0 to 255."""
    if not preprocessor._enable_normalize:
        return torch.zeros(3), torch.ones(3)
    return (preprocessor.mean.flatten().cpu().double(), preprocessor.std.flatten().cpu().double())
