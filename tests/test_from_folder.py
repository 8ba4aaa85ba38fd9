"""The whole way of a stranger: images in folders, a teacher, a student, predictions, pictures."""

import io
import json
import os
import os.path as osp
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stdout

import mmpretrain
import numpy as np
import pytest
import torch
from conftest import CONFIGS, build, config
from mmpretrain import FeatureExtractor, ImageClassificationInferencer, get_model
from mmpretrain.datasets.transforms import LoadImageFromFile
from PIL import Image
from trainings import unique_name

from deit_plugin.__main__ import main
from deit_plugin.apis.predict import Predictor
from deit_plugin.datasets import Digits

TOOLS = osp.join(osp.dirname(mmpretrain.__file__), '.mim', 'tools')
PACKAGED = osp.join(osp.dirname(CONFIGS), 'deit_plugin', '.mim', 'configs', 'finetune')
STUDENT = 'work_dirs/deit_tiny_distilled_folder'
SHORT = [
    'data_root=mine',
    'image_size=32',
    'train_cfg.max_epochs=2',
    'default_hooks.logger.interval=1',
]
NO_WORKERS = [
    f'{loader}_dataloader.{option}'
    for loader in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]


def script(name, config_name, *args, options=()):
    """What the script says that mim runs."""
    options = ['--cfg-options', *SHORT, *NO_WORKERS, *options, f'experiment_name=_{unique_name()}']
    path = osp.join(PACKAGED, f'{config_name}.py')
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as output:
        patch.setattr(sys, 'argv', [name, path, *args, *options])
        runpy.run_path(osp.join(TOOLS, name), run_name='__main__')
    return output.getvalue()


def command(*args):
    """The exit status of `deit-plugin`, and what it says."""
    with redirect_stdout(io.StringIO()) as output:
        status = main(list(args))
    return status, output.getvalue()


@pytest.fixture(scope='module')
def way(tmp_path_factory):
    """A folder with images of three colours, a teacher and a student that were trained on them."""
    folder = tmp_path_factory.mktemp('way')
    generator = np.random.default_rng(0)
    for part, count in (('train', 12), ('val', 4)):
        for channel, name in enumerate(('red', 'green', 'blue')):
            (folder / 'mine' / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 100, (40, 50, 3), dtype=np.uint8)
                pixels[..., channel] += 150
                Image.fromarray(pixels).save(folder / 'mine' / part / name / f'{i}.jpg')
    cfg = config('deit_tiny_distilled')
    model = dict(cfg.model, data_preprocessor=dict(cfg.data_preprocessor), teacher=None)
    model['head'] = dict(model['head'], loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1))
    torch.save(dict(model=build(model).state_dict()), folder / 'published.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        said = script('train.py', 'teacher_folder', options=['teacher=resnet18', 'pretrained=False'])
        patch.setenv('OMP_NUM_THREADS', '1')
        # As he types it: by mim, in a process of its own.
        options = [*SHORT, 'load_from=published.pth', 'teacher_checkpoint=work_dirs/teacher_folder']
        student = [osp.join(PACKAGED, 'deit_tiny_distilled_folder.py'), '--cfg-options', *options]
        mim = [osp.join(osp.dirname(sys.executable), 'mim'), 'train', 'mmpretrain', *student]
        done = subprocess.run(mim, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout[-4000:]
        yield folder, said, done.stdout


@pytest.fixture(autouse=True)
def there(way, monkeypatch):
    monkeypatch.chdir(way[0])


def test_what_follows_from_the_data_is_said_and_little_else(way):
    for text in way[1:]:
        for line in (
            'Own images in mine: 36 to train (blue 12, green 12, red 12), 12 to validate',
            'From them follow 3 classes, top-1, a batch of 8',
            'Data: 36 images to train, 12 to validate, 3 classes (blue, green, red)',
        ):
            assert line in text
        start = text[text.index('INFO - ') : text.index('Epoch(train)')]
        assert start.count(' - INFO - ') < 14 and 'Warning' not in start, start
        assert 'Training is done: best accuracy/top1' in text and 'curves.png' in text
    assert 'Teacher: resnet18, weights from work_dirs/teacher_folder; hard distillation' in way[2]
    assert 'newly drawn: head.layers.head.weight' in way[2]


def test_the_config_in_the_work_folder_runs_as_it_stands(way):
    (path,) = (way[0] / STUDENT).glob('*.py')
    weights = next((way[0] / STUDENT).glob('epoch_2.pth'))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as output:
        patch.setattr(sys, 'argv', ['test.py', str(path), str(weights), '--work-dir', 'again'])
        runpy.run_path(osp.join(TOOLS, 'test.py'), run_name='__main__')
    (accuracy,) = re.findall(r'accuracy/top1: ([\d.]+)', output.getvalue())
    assert f'[2][1/1]    accuracy/top1: {accuracy}' in way[2]


def test_predictions_are_those_of_the_evaluation(way):
    status, said = command('predict', STUDENT, 'mine/val', '--top', '2', '--json', 'predictions.json')
    results = json.loads((way[0] / 'predictions.json').read_text())
    assert status == 0 and len(results) == 12
    right = 0
    for result in results:
        first, second = result['classes']
        assert first['prediction'] >= second['prediction']
        assert first.keys() == {'name', 'prediction', 'class_head', 'distillation_head'}
        right += first['name'] == osp.basename(osp.dirname(result['image']))
        assert f'{100 * first["prediction"]:.1f}%' in said
    status, said = command('evaluate', '--data', 'mine', '--weights', STUDENT, '--report', 'page.html')
    assert status == 0 and f'{100 * right / 12:.2f}' in said
    page = (way[0] / 'page.html').read_text()
    assert f'{12 - right} of 12 images are classified wrongly' in page and '<th>blue</th>' in page


def test_probabilities_of_both_heads_and_their_mean(way):
    """By mmpretrain's own model, from the tokens on."""
    predictor = Predictor(STUDENT)
    model, images = predictor.model, predictor.prepare(['mine/val/red/0.jpg', 'mine/val/blue/1.jpg'])
    found = predictor.probabilities(images)
    with torch.no_grad():
        tokens = model.backbone(images)[-1]
        logits = [head(x) for head, x in zip(model.head.layers.children(), tokens)]
    for name, expected in (
        ('class_head', logits[0]),
        ('distillation_head', logits[1]),
        ('prediction', (logits[0] + logits[1]) / 2),
    ):
        torch.testing.assert_close(found[name], expected.softmax(dim=1))


def test_files_folders_and_globs(way):
    for names, number in (
        (['mine/val/red/0.jpg'], 1),
        (['mine/val/red'], 4),
        (['mine/val/*/0.jpg', 'mine/val/red'], 6),  # one of them twice
    ):
        _, said = command('predict', STUDENT, *names)
        assert said.count('.jpg') == number


@pytest.mark.parametrize(
    'args, message',
    [
        (['predict', 'nowhere', 'mine/val'], "There is no checkpoint 'nowhere'"),
        (['predict', STUDENT, 'nowhere/*.jpg'], "'nowhere/*.jpg' is no image, no folder with images"),
        (['predict', STUDENT, 'mine/val', '--top', '0'], '--top 0'),
        (['predict', STUDENT, 'mine/val', '--json', 'published.pth'], 'published.pth is there already'),
        (['predict', STUDENT, 'mine/val', '--config', 'deit_huge'], "'deit_huge' is no variant and no file"),
        (['predict', 'published.pth', 'mine/val'], 'records no config of its model'),
        (['attention', STUDENT, 'mine/val/red/9.jpg'], '9.jpg'),
        (['attention', 'work_dirs/teacher_folder', 'mine/val/red/0.jpg'], 'but the backbone is a'),
        (['attention', STUDENT, 'mine/val/red/0.jpg', '--output', 'published.pth'], 'is there already'),
        (['evaluate', '--data', 'mine', '--weights', 'nowhere'], "--weights 'nowhere' is not there"),
    ],
)
def test_what_goes_wrong_is_a_sentence(capsys, args, message):
    assert main(args) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith('deit-plugin: ') and 'Traceback' not in said


def test_a_broken_image_leaves_the_others(way, capsys):
    whole = (way[0] / 'mine' / 'val' / 'red' / '0.jpg').read_bytes()
    (way[0] / 'broken.jpg').write_bytes(whole[: len(whole) // 2])
    assert main(['predict', STUDENT, 'broken.jpg', 'mine/val/red/0.jpg']) == 1
    said = capsys.readouterr()
    assert 'broken.jpg' in said.err and '(could not be read)' in said.out and '%' in said.out


def test_a_foreign_checkpoint_by_the_name_of_its_variant(way):
    status, said = command(
        'predict', 'published.pth', 'mine/val/red/0.jpg', '--config', 'deit_tiny_distilled'
    )
    assert status == 0 and said.count('%') == 15


def test_folders_of_other_classes_are_refused(way, tmp_path, capsys):
    for name in ('one', 'two', 'three'):
        (tmp_path / 'other' / name).mkdir(parents=True)
        (tmp_path / 'other' / name / '0.jpg').write_bytes(
            (way[0] / 'mine' / 'val' / 'red' / '0.jpg').read_bytes()
        )
    assert main(['evaluate', '--data', str(tmp_path / 'other'), '--weights', STUDENT]) == 1
    assert (
        'knows the classes blue, green, red, but there are folders of other names' in capsys.readouterr().out
    )


def test_where_the_tokens_look(way):
    status, said = command('attention', STUDENT, 'mine/val/red/0.jpg', '--similarity')
    assert status == 0 and 'Drawn: attention.png' in said
    assert len(re.findall(r' -?\d\.\d\d', said)) == 13  # learned, and after each of 12 layers
    with Image.open(way[0] / 'attention.png') as image:
        assert image.format == 'PNG'


def test_mmpretrains_inferencers(way):
    """As docs/data.md has them."""
    (path,) = (way[0] / STUDENT).glob('*.py')
    weights = str(way[0] / STUDENT)
    expected = Predictor(weights).probabilities(Predictor(weights).prepare(['mine/val/red/0.jpg']))
    model = get_model(str(path), pretrained=weights)
    (found,) = ImageClassificationInferencer(model)('mine/val/red/0.jpg')
    np.testing.assert_allclose(found['pred_scores'], expected['prediction'][0], atol=1e-6)
    assert found['pred_class'] in ('red', 'green', 'blue')
    ((cls, dist),) = FeatureExtractor(model)('mine/val/red/0.jpg', stage='neck')
    assert cls.shape == dist.shape == (192,)


def test_a_training_that_would_learn_nothing_is_refused(way):
    """The one of the issue: 64 accumulated iterations in an epoch of 4."""
    options = ['default_hooks.global_batch.batch_size=512', 'train_dataloader.batch_size=8', 'load_from=None']
    with pytest.raises(ValueError, match='Training does not start:(.|\n)*accumulat'):
        script('train.py', 'deit_tiny_folder', '--work-dir', 'nothing', options=options)
    assert not list((way[0] / 'nothing').glob('*.pth'))


def test_the_digits_in_folders(tmp_path):
    status, said = command('digits', str(tmp_path / 'digits'))
    assert status == 0 and said.startswith('1797 images')
    for name, split in (('train', 'train'), ('val', 'test')):
        paths = sorted((tmp_path / 'digits' / name).glob('*/*.png'), key=lambda path: path.name)
        samples = Digits(split, pipeline=[]).load_data_list()
        assert len(paths) == len(samples)
        for path, sample in list(zip(paths, samples))[::50]:
            assert path.parent.name == str(sample['gt_label'])
            loaded = LoadImageFromFile()(dict(img_path=str(path)))['img']
            np.testing.assert_array_equal(loaded, sample['img'])


def test_the_digits_overwrite_nothing(tmp_path, capsys):
    (tmp_path / 'mine.txt').touch()
    assert main(['digits', str(tmp_path)]) == 2
    assert 'not an empty folder' in capsys.readouterr().err and os.listdir(tmp_path) == ['mine.txt']
