"""mmpretrain's scripts on configs and checkpoints of this package."""

import hashlib
import io
import os
import os.path as osp
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import mmpretrain
import numpy as np
import pytest
import torch
from conftest import CONFIGS, ROOT
from matplotlib import _tight_bbox
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model
from PIL import Image
from trainings import unique_name

from deit_plugin.__main__ import main
from deit_plugin.apis.predict import Predictor
from deit_plugin.checkpoints.downloads import published_hash
from deit_plugin.datasets.digits import write_digits

pytestmark = pytest.mark.tool('mmpretrain', 'with its scripts')
TOOLS = osp.join(osp.dirname(mmpretrain.__file__), '.mim', 'tools')
SHIMS = ROOT / 'deit_plugin' / '.mim' / 'tools'
CONFIG = str(CONFIGS / 'finetune' / 'digits_distilled_folder.py')
RUN = Path('work_dirs', 'digits_distilled_folder')
IMAGE = osp.join('data', 'digits', 'val', '3', '1473.png')
ALONE = 'teacher_checkpoint=None'


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """The digits in folders, and a student that was trained on a few of them."""
    folder = tmp_path_factory.mktemp('demo')
    options = [
        *(
            'train_cfg.max_epochs=1',
            'train_dataloader.dataset.indices=192',
            'val_dataloader.dataset.indices=64',
        ),
        *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
        *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'),
        *('default_hooks.checkpoint.published_keys=meta,state_dict', f'experiment_name=_{unique_name()}'),
    ]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.chdir(folder)
        write_digits('data/digits')
        patch.setattr(sys, 'argv', ['train.py', CONFIG, '--cfg-options', ALONE, *options])
        runpy.run_path(osp.join(TOOLS, 'train.py'), run_name='__main__')
    return folder


@pytest.fixture(autouse=True)
def there(demo, monkeypatch):
    monkeypatch.chdir(demo)


def tool(*args):
    """What a script says."""
    with redirect_stdout(io.StringIO()) as output:
        assert main(['run', *map(str, args)]) == 0
    return output.getvalue()


@pytest.fixture
def matplotlib_as_it_was():
    before = _tight_bbox.adjust_bbox
    yield
    _tight_bbox.adjust_bbox = before


@pytest.mark.usefixtures('matplotlib_as_it_was')
@pytest.mark.parametrize('mode', ['original', 'transformed', 'pipeline'])
@pytest.mark.parametrize('config', ['deit_digits_distilled', 'finetune/digits_distilled_folder'])
def test_browse_dataset(tmp_path, config, mode):
    """The visualizer of the configs is its own, and one's own images complete a config."""
    path = CONFIGS / f'{config}.py'
    tool('browse_dataset', path, '--not-show', '--output-dir', tmp_path, '--show-number', 1, '--mode', mode)
    (image,) = os.listdir(tmp_path)
    assert cv2.imread(str(tmp_path / image)).ndim == 3


@pytest.mark.usefixtures('matplotlib_as_it_was')
def test_browse_dataset_by_mim_on_imagenet(tmp_path, monkeypatch):
    """As mmpretrain's own script, without this package's mends."""
    monkeypatch.chdir(tmp_path)
    os.makedirs('data/imagenet/train')
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save('black.jpg')
    for i in range(1000):
        folder = Path('data', 'imagenet', 'train', f'n{i:08}')
        folder.mkdir()
        os.link('black.jpg', folder / f'{i}.JPEG')
    options = ['--not-show', '--output-dir', 'out', '--show-number', '2', '--mode', 'original']
    monkeypatch.setattr(sys, 'argv', ['browse_dataset.py', str(CONFIGS / 'deit_tiny_distilled.py'), *options])
    with redirect_stdout(io.StringIO()):
        runpy.run_path(osp.join(TOOLS, 'visualization', 'browse_dataset.py'), run_name='__main__')
    assert sorted(os.listdir('out')) == ['0.JPEG', '1.JPEG']


def test_verify_dataset(tmp_path):
    """It reads what the configs' own transforms read, and finds what Pillow calls broken."""
    log = tmp_path / 'broken.log'
    for phase in ('train', 'val'):
        assert 'There is no broken file' in tool(
            'verify_dataset', CONFIG, '--out-path', log, '--phase', phase
        )
    generator = np.random.default_rng(0)
    for i in range(40):
        folder = tmp_path / 'mine' / 'ab'[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f'{i}.jpg')
    broken = tmp_path / 'mine' / 'b' / '7.jpg'
    broken.write_bytes(broken.read_bytes()[:900])
    config = CONFIGS / 'finetune' / 'deit_small_distilled_folder.py'
    found, options = [], ['--cfg-options', f'data_root={tmp_path / "mine"}']
    for phase in ('train', 'val'):  # of which one has it
        tool('verify_dataset', config, '--out-path', log, '--phase', phase, *options)
        found += log.read_text().split() if log.exists() else []
    assert found == [str(broken)]


def test_data_in_memory_have_no_files_to_verify(tmp_path):
    with pytest.raises(AssertionError, match='load image from files'):
        tool('verify_dataset', CONFIGS / 'deit_digits_distilled.py', '--out-path', tmp_path / 'broken.log')


@pytest.mark.tool('grad-cam', 'below 1.5, by vis_cam')
def test_vis_cam(tmp_path):
    pytest.importorskip('pytorch_grad_cam', reason='vis_cam needs grad-cam below 1.5')
    path = tmp_path / 'cam.png'
    said = tool('vis_cam', IMAGE, CONFIG, RUN, '--vit-like', '--save-path', path)
    assert '"backbone.layers.3.ln1" as the target layer' in said  # the tokens are read after it
    assert cv2.imread(str(path)).shape == (16, 16, 3)


def test_confusion_matrix(tmp_path):
    options = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    weights = RUN / 'epoch_1.pth'
    tool('confusion_matrix', CONFIG, weights, '--out', tmp_path / 'matrix.pkl', '--cfg-options', *options)
    assert (tmp_path / 'matrix.pkl').is_file()


def test_print_config():
    said = tool('print_config', CONFIG, '--cfg-options', 'train_dataloader.batch_size=7')
    assert 'batch_size=7' in said and 'max_epochs=30' in said and "'9'" in said


def published_by_script(tmp_path):
    said = tool('publish_model', RUN / 'epoch_1.pth', tmp_path / 'mine.pth')
    (path,) = tmp_path.glob('mine_*.pth')
    assert str(path) in said
    return path


def published_by_training(tmp_path):
    (path,) = RUN.glob('epoch_1-*.pth')
    return path


@pytest.mark.parametrize('publish', [published_by_script, published_by_training])
def test_published_checkpoint(tmp_path, publish):
    """The weights and what tells their model, under the file's own hash."""
    path = publish(tmp_path)
    assert published_hash(str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    found, whole = (torch.load(file, weights_only=True) for file in (path, RUN / 'epoch_1.pth'))
    assert found.keys() == {'meta', 'state_dict'} and 'optimizer' in whole
    assert found['state_dict'].keys() == whole['state_dict'].keys()
    assert all(torch.equal(value, whole['state_dict'][name]) for name, value in found['state_dict'].items())
    predictor, of_whole = Predictor(str(path)), Predictor(str(RUN / 'epoch_1.pth'))
    image = predictor.prepare([IMAGE])
    assert torch.equal(
        predictor.probabilities(image)['prediction'], of_whole.probabilities(image)['prediction']
    )
    assert predictor.classes == list('0123456789')


def test_inferencer_by_the_path_of_a_config():
    """`inference_model` takes a model of the hub alone: mmpretrain asks its metafile for the task."""
    config = str(RUN / osp.basename(CONFIG))
    predictor = Predictor(str(RUN))
    expected = predictor.probabilities(predictor.prepare([IMAGE]))['prediction'][0]
    for model in (config, get_model(config, pretrained=str(RUN)), Config.fromfile(config)):
        (result,) = ImageClassificationInferencer(model, pretrained=str(RUN))(IMAGE)
        torch.testing.assert_close(torch.tensor(result['pred_scores']), expected)
        assert result['pred_class'] == str(int(expected.argmax()))


def test_what_is_no_script(capsys):
    assert main(['run', 'nothing']) == 2
    assert "has no script 'nothing': choose from analyze_logs" in capsys.readouterr().err


def test_mim_finds_each_script_by_its_name(monkeypatch):
    names = {path.stem for path in SHIMS.glob('*.py')} - {'train', 'test'}
    assert names == {
        *('browse_dataset', 'confusion_matrix', 'get_flops', 'print_config', 'publish_model'),
        *('verify_dataset', 'vis_cam', 'vis_scheduler'),
    }
    contents = {(SHIMS / f'{name}.py').read_text() for name in names}
    assert len(contents) == 1  # links to one file
    assert all(len(list(Path(TOOLS).rglob(f'{name}.py'))) == 1 for name in names)
    script = str(SHIMS / 'get_flops.py')
    monkeypatch.setattr(sys, 'argv', [script, CONFIG, '--shape', '16'])
    with redirect_stdout(io.StringIO()) as output:
        runpy.run_path(script, run_name='__main__')
    assert 'Flops: ' in output.getvalue() and sys.argv[0] == script
