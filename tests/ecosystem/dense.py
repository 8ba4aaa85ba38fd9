"""What test_dense.py runs in a process of its own.

A file of the document takes the place of mmcv's operators, and has to do so before mmcv is imported.

    python dense.py CONFIG STUDENT CHECKPOINT...

builds the config's model with each checkpoint, all of which have the weights of STUDENT.
"""

import sys

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData


def image(height, width):
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8)


def assert_filled(backbone, state):
    """With all weights of the checkpoint's backbone, the distillation token's too."""
    own = backbone.state_dict()
    theirs = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    assert own['pos_embed'].shape == (1, 2 + 16, 32) != theirs.pop('pos_embed').shape  # resized
    assert own.keys() - theirs.keys() == {'pos_embed'} and 'dist_token' in theirs
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def assert_learns(model, batch):
    """Each loss is finite, and all parts of the backbone hear of them."""
    data = model.data_preprocessor(batch, training=True)
    loss, logged = model.parse_losses(model(**data, mode='loss'))
    assert all(value.isfinite().all() for value in logged.values()) and loss > 0
    loss.backward()
    for name, parameter in model.backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def segment(model):
    from mmseg.structures import SegDataSample

    samples = []
    for _ in range(2):
        truth = PixelData(data=torch.randint(0, 150, (1, 64, 64)))
        samples.append(SegDataSample(gt_sem_seg=truth, metainfo=dict(img_shape=(64, 64))))
    assert_learns(model, dict(inputs=[image(64, 64), image(64, 64)], data_samples=samples))
    meta = dict(img_shape=(50, 75), ori_shape=(100, 150))  # no multiple of the patches
    batch = dict(inputs=[image(50, 75)], data_samples=[SegDataSample(metainfo=meta)])
    (answer,) = model.eval().test_step(batch)
    assert answer.pred_sem_seg.data.shape == (1, 100, 150)
    assert answer.seg_logits.data.shape == (150, 100, 150) and answer.seg_logits.data.isfinite().all()


def detect(model):
    from mmdet.structures import DetDataSample

    features = model.eval().extract_feat(torch.rand(1, 3, 128, 256))
    assert [f.shape[2:] for f in features] == [(16, 32), (8, 16), (4, 8), (2, 4), (1, 2)]
    truth = InstanceData(bboxes=torch.tensor([[5.0, 5.0, 40.0, 30.0]]), labels=torch.tensor([3]))
    meta = dict(img_shape=(50, 75), ori_shape=(100, 150), scale_factor=(0.5, 0.5))
    samples = [DetDataSample(gt_instances=truth, metainfo=meta)]
    assert_learns(model.train(), dict(inputs=[image(50, 75)], data_samples=samples))
    (answer,) = model.eval().test_step(dict(inputs=[image(50, 75)], data_samples=samples))
    found = answer.pred_instances
    assert len(found) and found.scores.isfinite().all()
    assert (found.bboxes >= 0).all() and (found.bboxes <= torch.tensor([150.0, 100.0] * 2)).all()


def main(config, student, *checkpoints):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    state = torch.load(student)['state_dict']
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    for checkpoint in checkpoints:
        cfg.model.backbone.init_cfg.checkpoint = checkpoint
        model = MODELS.build(cfg.model)
        model.init_weights()
        model = revert_sync_batchnorm(model)  # as a runner does without a second process
        assert_filled(model.backbone, state)
        dict(mmseg=segment, mmdet=detect)[cfg.default_scope](model)


if __name__ == '__main__':
    main(*sys.argv[1:])
