"""What this package uses of others beyond their documented interfaces.

If a release changes one of these, this file says which, before a training does.
"""

import inspect

import pytest
import torch
from mmcv.cnn.bricks import drop
from mmcv.cnn.bricks.transformer import FFN, PatchEmbed
from mmengine.dataset import InfiniteSampler
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseDataPreprocessor, BaseTTAModel
from mmengine.optim import AmpOptimWrapper, DefaultOptimWrapperConstructor, OptimWrapper
from mmengine.optim.scheduler import lr_scheduler, param_scheduler
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, Runner
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmpretrain.apis.model import ModelHub
from mmpretrain.datasets import CustomDataset, RepeatAugSampler
from mmpretrain.models import (
    ClsDataPreprocessor,
    ClsHead,
    DeiTClsHead,
    ImageClassifier,
    TimmClassifier,
    VisionTransformer,
)
from mmpretrain.models import resize_pos_embed as resize
from mmpretrain.models.backbones.vision_transformer import TransformerEncoderLayer
from mmpretrain.models.utils import attention
from timm.data import ImageNetInfo
from timm.data.random_erasing import RandomErasing

SIGNATURES = [
    (mmengine_checkpoint.load_from_local, 'filename, map_location'),
    (mmengine_checkpoint._get_mmengine_home, ''),
    (mmengine_checkpoint._process_mmcls_checkpoint, 'checkpoint'),
    (mmengine_checkpoint.get_torchvision_models, ''),
    (mmengine_checkpoint.get_external_models, ''),
    (mmengine_checkpoint.get_deprecated_model_names, ''),
    (mmengine_checkpoint.get_mmcls_models, ''),
    (CheckpointLoader.register_scheme, 'prefixes, loader, force'),
    (CheckpointHook._save_checkpoint_with_step, 'self, runner, step, meta'),
    (CheckpointHook._save_best_checkpoint, 'self, runner, metrics'),
    (Hook.after_load_checkpoint, 'self, runner, checkpoint'),
    (Hook.before_save_checkpoint, 'self, runner, checkpoint'),
    (LocalBackend.put, 'self, obj, filepath'),
    (DefaultOptimWrapperConstructor.add_params, 'self, params, module, prefix, is_dcn_module'),
    (OptimWrapper.should_update, 'self'),
    (InfiniteSampler._indices_of_rank, 'self'),
    (ModelHub._expand_config_path, 'metainfo, config_prefix'),
    (ClsHead._get_loss, 'self, cls_score, data_samples, kwargs'),
    (ClsHead._get_predictions, 'self, cls_score, data_samples'),
    (VisionTransformer._prepare_pos_embed, 'self, state_dict, prefix, args, kwargs'),
    (VisionTransformer._format_output, 'self, x, hw'),
    (VisionTransformer._freeze_stages, 'self'),
    (VisionTransformer.get_layer_depth, 'self, param_name, prefix'),
    (resize, 'pos_embed, src_shape, dst_shape, mode, num_extra_tokens'),
    (
        attention.scaled_dot_product_attention_pyimpl,
        'query, key, value, attn_mask, dropout_p, scale, is_causal',
    ),
    (torch.hub.download_url_to_file, 'url, dst, hash_prefix, progress'),
    (ImageNetInfo.label_names, 'self'),
]


@pytest.mark.parametrize(
    'function, parameters', SIGNATURES, ids=lambda value: getattr(value, '__qualname__', '')
)
def test_signatures(function, parameters):
    assert ', '.join(inspect.signature(function).parameters) == parameters


# Attributes that are set or read, by the source of the class that owns them.
ATTRIBUTES = [
    (Runner, ['_train_loop', '_resume', 'message_hub']),
    (EpochBasedTrainLoop, ['_max_epochs', '_epoch', '_iter']),
    (OptimWrapper, ['_accumulative_counts']),
    (AmpOptimWrapper, ['self.cast_dtype']),
    (DefaultOptimWrapperConstructor, ['base_lr', 'base_wd', 'optimizer_cfg']),
    (
        CheckpointHook,
        [
            'keep_ckpt_ids',
            'best_ckpt_path',
            'best_ckpt_path_dict',
            'key_indicators',
            'file_backend',
            'filename_tmpl',
            'last_ckpt',
            'save_optimizer',
            'save_param_scheduler',
            'args',
        ],
    ),
    (param_scheduler._ParamScheduler, ['base_values', 'last_step']),
    (ClsDataPreprocessor, ['_enable_normalize', 'to_rgb', 'batch_augments', 'num_classes', 'to_onehot']),
    (DeiTClsHead, ["self.layers.add_module('head_dist'"]),
    (TransformerEncoderLayer, ['self.ln1', 'self.attn', 'self.ln2', 'self.ffn', 'embed_dims']),
    (
        attention.MultiheadAttention,
        [
            'self.scaled_dot_product_attention',
            'self.qkv',
            'num_heads',
            'head_dims',
            'attn_drop',
            'proj_drop',
            'out_drop',
            'gamma1',
        ],
    ),
    (
        VisionTransformer,
        [
            '_register_load_state_dict_pre_hook(self._prepare_pos_embed)',
            'self.patch_resolution',
            'num_patches + self.num_extra_tokens',
            '_layer_cfg.update(layer_cfgs[i])',
        ],
    ),
    (ImageClassifier, ["hasattr(self.backbone, '_checkpoint_filter')"]),
    (ModelHub, ['_models_dict']),
    (TimmClassifier, ['self.model = create_model']),
    (
        RandomErasing,
        [
            'self.probability',
            'self._erase(input, *input.size(), input.dtype)',
            'img[:, top:top + h, left:left + w] =',
        ],
    ),
    (drop.DropPath, ['drop_prob']),
    (PatchEmbed, ['self.adaptive_padding', 'self.projection']),
    (FFN, ['self.gamma2(out)']),
    (BaseDataPreprocessor, ['_device']),
    (RepeatAugSampler, ['num_repeats']),
]


@pytest.mark.parametrize('owner, names', ATTRIBUTES, ids=lambda value: getattr(value, '__name__', ''))
def test_attributes(owner, names):
    source = ''.join(
        inspect.getsource(c)
        for c in owner.__mro__
        if c.__module__.split('.')[0] != 'builtins'
        and c.__module__.split('.')[0] in ('mmengine', 'mmpretrain', 'mmcv', 'timm')
    )
    assert [name for name in names if name not in source] == []


def test_names_that_are_imported():
    assert lr_scheduler.LRSchedulerMixin and param_scheduler.INF == int(1e9)
    assert 'extensions' in inspect.signature(CustomDataset).parameters
    assert issubclass(BaseTTAModel, torch.nn.Module)
    assert callable(torch.serialization.add_safe_globals)
    assert ModelHub._models_dict
