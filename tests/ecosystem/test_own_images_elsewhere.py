"""docs/ecosystem.md: photos that are not square, a teacher of their classes, and a name for a model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CONFIGS
from examples import examples
from mmpretrain import list_models
from mmpretrain.apis.model import ModelHub
from PIL import Image
from running import IMAGE, NO_WORKERS, example, python, run, write

from deit_plugin.apis.predict import Predictor
from deit_plugin.models.teacher import Teacher

STUDENT = 'work_dirs/deit_small_distilled_folder'
CLASSES = ('bird', 'cat', 'dog')
# In place of the published weights.
SMALL = f"""
_base_ = [{str(CONFIGS / 'finetune' / 'deit_small_distilled_folder.py')!r}]
data_root, image_size, load_from = 'my_images', 32, None
arch = dict(_delete_=True, embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)
model = dict(backbone=dict(arch=arch, patch_size=8), head=dict(in_channels=32))
train_cfg = dict(max_epochs=1)
"""


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with photos of 40 x 50 pixels and a student of their three classes."""
    folder = tmp_path_factory.mktemp('own')
    generator = np.random.default_rng(0)
    for part, count in (('train', 12), ('val', 4)):
        for channel, name in enumerate(CLASSES):
            (folder / 'my_images' / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 200, (50, 40, 3), dtype=np.uint8)
                pixels[:25, :, channel] += 55
                Image.fromarray(pixels).save(folder / 'my_images' / part / name / f'{i}.jpg')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(['mim', 'train', 'mmpretrain', write('deit_small_distilled_folder.py', SMALL)], *NO_WORKERS)
        run(['deit-plugin', 'convert', STUDENT, 'hub/deit-small', '--to', 'transformers'])
    return folder


@pytest.mark.tool('transformers', '`pipeline` of photos')
def test_pipeline_keeps_the_shape_of_a_photo(place, monkeypatch):
    """The probabilities are those of `deit-plugin predict`, and are not without the block's setting."""
    monkeypatch.chdir(place)
    predictor = Predictor(STUDENT)
    photo = 'my_images/val/cat/0.jpg'
    expected = predictor.probabilities(predictor.prepare([photo]))['prediction'][0].tolist()
    seen = python(example('Hugging Face', 2, edge='shortest_edge=256 -> shortest_edge=36'))
    found = {answer['label']: answer['score'] for answer in seen['answers']}
    assert found == pytest.approx(dict(zip(CLASSES, expected)), abs=1e-4)
    stretched = seen['pipeline']('image-classification', model='hub/deit-small')(photo)
    assert {answer['label']: answer['score'] for answer in stretched} != pytest.approx(found, abs=1e-3)


@pytest.mark.tool('transformers', 'as teacher')
def test_teacher_of_transformers_for_own_images(place, monkeypatch):
    """It is asked in the training, and answers as it does by itself on the renormalised images."""
    transformers = pytest.importorskip('transformers')
    monkeypatch.chdir(place)
    shape = dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type='basic', num_labels=3)
    peer = transformers.ResNetForImageClassification(transformers.ResNetConfig(**shape)).eval()
    peer.save_pretrained('hub/teacher')
    asked = []
    ask = Teacher.__call__
    monkeypatch.setattr(
        Teacher, '__call__', lambda self, x: asked.append((self, x, ask(self, x))) or asked[-1][2]
    )
    text = example('Hugging Face', 3, base=f'configs/finetune/ -> {place}/')
    said = run(['mim', 'train', 'mmpretrain', write('taught.py', text)], *NO_WORKERS)
    assert 'teacher_agreement' in said and len(asked) == 4
    teacher, images, answer = asked[0]
    own = teacher.student_preprocessor
    with torch.no_grad():
        expected = peer((images * own.std + own.mean) / 127.5 - 1).logits
    torch.testing.assert_close(answer, expected, rtol=0, atol=1e-5)


@pytest.mark.tool('mmpretrain', 'names of your own')
def test_a_model_gets_a_name(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setattr(ModelHub, '_models_dict', dict(ModelHub._models_dict))
    (text,) = examples('Publishing', 'yaml')
    write('my_models.yml', text.replace('digits_distilled_folder', Path(STUDENT).name))
    photo = 'my_images/val/dog/1.jpg'
    result = python(example('Publishing', 1, image=f'{IMAGE} -> {photo}'))['result']
    predictor = Predictor(STUDENT)
    expected = predictor.probabilities(predictor.prepare([photo]))['prediction'][0]
    torch.testing.assert_close(torch.tensor(result['pred_scores']), expected)
    assert list_models('my_*') == ['my_digits'] and result['pred_class'] in CLASSES
