"""The same small DeiT by this package, timm and transformers."""

import re

import timm
import torch
import transformers
from conftest import ARCH, NUM_CLASSES, build, shuffle_weights
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from deit_plugin.models import accept_foreign_names

SIDE = 32
TOKENS = dict(type='DistillationTokenNeck')
DUAL = dict(type='DeiTDualHead', num_classes=NUM_CLASSES, in_channels=32)
SINGLE = dict(type='VisionTransformerClsHead', num_classes=NUM_CLASSES, in_channels=32)
HEAD_NAMES = dict(
    plain='ViTForImageClassification',
    both='DeiTForImageClassificationWithTeacher',
    cls='DeiTForImageClassification',
    base='DeiTModel',
    masked='DeiTForMaskedImageModeling',
)


def ours(kind, img_size=SIDE, **kwargs):
    """A model of ours; ``kind`` names its heads."""
    backbone = dict(type='DeiT', arch=ARCH, img_size=img_size, patch_size=8, distilled=kind != 'plain')
    if kind == 'masked':
        backbone.update(type='MaskedDeiT')
        cfg = dict(
            type='SimMIM',
            backbone=backbone,
            neck=dict(type='SimMIMLinearDecoder', in_channels=32, encoder_stride=8),
            head=dict(
                type='SimMIMHead',
                patch_size=8,
                loss=dict(type='PixelReconstructionLoss', criterion='L1', channel=3),
            ),
        )
    else:
        cfg = dict(
            plain=dict(type='ImageClassifier', head=SINGLE),
            both=dict(type='DistilledClassifier', neck=TOKENS, head=DUAL),
            cls=dict(type='ImageClassifier', neck=dict(TOKENS, token='cls'), head=SINGLE),
            base=dict(type='ImageClassifier'),
        )[kind]
        cfg = dict(cfg, backbone=backbone)
    model = build({**cfg, **kwargs})
    accept_foreign_names(model)  # a SimMIM does not by itself
    return model


def timms(kind, img_size=SIDE):
    peer = VisionTransformer if kind == 'plain' else VisionTransformerDistilled
    return shuffle_weights(
        peer(
            img_size=img_size,
            patch_size=8,
            embed_dim=32,
            depth=3,
            num_heads=2,
            mlp_ratio=2,
            num_classes=NUM_CLASSES,
        )
    ).eval()


SMALL_DEIT3 = dict(patch_size=8, embed_dim=32, depth=3, num_heads=2, mlp_ratio=2, img_size=SIDE)


def deit3_of_timm(name='small_patch16_224', num_classes=NUM_CLASSES, **kwargs):
    """A DeiT III of timm, by default a small one; drawing timm's own weights takes long."""
    with torch.device('meta'):
        model = timm.create_model(f'deit3_{name}', num_classes=num_classes, **(kwargs or SMALL_DEIT3))
    return each_matters(model.to_empty(device='cpu')).eval()


def each_matters(model):
    """Weights of which each matters, of any width, LayerScale included."""
    for name, p in model.named_parameters():
        about_one = re.search(r'(norm|ln)\d?\.weight$|gamma', name)
        std = {1: 0.3, 3: 0.5}.get(p.ndim) or p[0].numel() ** -0.5
        torch.nn.init.normal_(p, 1.0 if about_one else 0.0, std)
    return model


def our_deit3(theirs=None, arch=ARCH, img_size=SIDE, patch_size=8, **kwargs):
    """A classifier of ours, with the weights of timm's where they are given."""
    backbone = dict(type='DeiTIII', arch=arch, img_size=img_size, patch_size=patch_size, **kwargs)
    width, classes = (32, NUM_CLASSES) if theirs is None else (theirs.embed_dim, theirs.num_classes)
    head = dict(type='DeiTHead', num_classes=classes, in_channels=width)
    cfg = dict(type='ImageClassifier', backbone=backbone, head=head)
    if theirs is None:
        return build(cfg)
    with torch.device('meta'):
        model = build(cfg)
    model.load_state_dict(theirs.state_dict(), assign=True)  # strict
    return model.eval()


def huggings(kind, img_size=SIDE):
    config = transformers.ViTConfig if kind == 'plain' else transformers.DeiTConfig
    peer = getattr(transformers, HEAD_NAMES[kind])
    return shuffle_weights(
        peer(
            config(
                hidden_size=32,
                num_hidden_layers=3,
                num_attention_heads=2,
                intermediate_size=64,
                image_size=img_size,
                patch_size=8,
                num_labels=NUM_CLASSES,
                layer_norm_eps=1e-6,
                encoder_stride=8,
            )
        )
    ).eval()


def mask():
    masked = torch.zeros(2, 4, 4, dtype=torch.bool)
    masked[:, 1:3, ::2] = True
    return masked


@torch.no_grad()
def answer(model, images):
    """What a peer or a model of ours gives in evaluation."""
    model.eval()
    if isinstance(model, transformers.PreTrainedModel):
        if 'Masked' in type(model).__name__:
            return model(images, bool_masked_pos=mask().flatten(1)).reconstruction
        out = model(images)
        return out.last_hidden_state if hasattr(out, 'last_hidden_state') else out.logits
    if type(model).__name__ == 'SimMIM':
        return model.neck(model.backbone(images, mask())[0])
    if not getattr(model, 'head', None):
        model.backbone.out_type = 'raw'
        return model.backbone(images)[0]
    return model(images)


def images(side=SIDE):
    return torch.randn(2, 3, side, side)
