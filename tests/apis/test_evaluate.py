"""The variants by name: in mmpretrain's hub, evaluated, and in a wheel."""

import glob
import importlib
import json
import os
import os.path as osp
import re
import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution

import mmpretrain
import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import ARCH, shuffle_weights
from mmengine.config import Config
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.apis import ModelHub, inference_model
from mmpretrain.registry import MODELS
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo, create_transform

from deit_plugin.__main__ import main
from deit_plugin.apis import evaluate as zoo
from deit_plugin.apis import hub
from deit_plugin.apis.convert import convert

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.abspath(__file__))))
TINY = 'deit_tiny_distilled'
FILE = 'deit_tiny_distilled_patch16_224-b40b3cf7.pth'
SYNSETS = sorted(ImageNetInfo('imagenet-1k').label_names())
TRANSFORM = create_transform(
    224,
    interpolation='bicubic',
    crop_pct=0.875,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)

with open(osp.join(ROOT, 'configs', 'metafile.yml')) as metafile:
    PUBLISHED = {m['Name']: m for m in yaml.safe_load(metafile)['Models']}


def accuracies(model):
    metrics = model['Results'][0]['Metrics']
    return [metrics.get(f'Top {k} Accuracy') for k in (1, 5)]


def expand(cells):
    """`deit_{tiny,small}_x` and `72.2, 79.8 / -` as a row each."""
    name = cells[0].strip('`')
    found = re.search(r'\{(.*)\}', name)
    if not found:
        return [[name, *cells[1:]]]
    top1, top5 = cells[1].split(' / ')
    sizes = found[1].split(',')
    return [
        [name.replace(found[0], size), f'{first} / {top5}', *cells[2:]]
        for size, first in zip(sizes, top1.split(', '), strict=True)
    ]


def readme_table():
    with open(osp.join(ROOT, 'configs', 'README.md'), encoding='utf-8') as file:
        (table,) = re.findall(r'(?m)^\| config \|.*\n(?:\|.*\n)+', file.read())
    lines = [[cell.strip() for cell in line[1:-1].split(' | ')] for line in table.splitlines()]
    rows = [row for line in lines[2:] for row in expand(line)]
    return {row[0]: dict(zip(lines[0], row, strict=True)) for row in rows}


def test_readme_and_metafile_agree():
    rows = readme_table()
    for name, row in rows.items():
        top1, top5 = row['published top-1 / top-5'].split(' / ')
        if name not in PUBLISHED:
            assert (top1, top5) == ('-', '-'), name
            continue
        model = PUBLISHED[name]
        for shown, figure in zip((top1, top5), accuracies(model)):
            assert shown == ('-' if figure is None else f'{figure:.1f}'), name
        size = model['Metadata']
        if row['parameters'] == 'as plain':
            size = PUBLISHED[name.replace('_soft_cls', '').replace('_hard_cls', '')]['Metadata']
            assert size == model['Metadata']
        else:
            assert row['parameters'] == f'{size["Parameters"] / 1e6:.2f}M'
            # As counted here, which is not quite what was published.
            assert float(row['FLOPs'].rstrip('G')) == pytest.approx(size['FLOPs'] / 1e9, rel=1e-3, abs=0.006)
        link = re.search(r'\[(.*)\]\((.*)\)', row['published as'])
        address = model.get('Weights')
        if address is None:
            assert row['published as'] == 'not published'
        else:
            assert link[2] == address and link[1] == osp.basename(address)
    assert PUBLISHED.keys() <= rows.keys()


def test_complexity_and_metafile_agree(monkeypatch):
    monkeypatch.syspath_prepend(osp.join(ROOT, 'tests', 'benchmarks'))
    import complexity

    for name, figures in complexity.PUBLISHED.items():
        size = PUBLISHED[name]['Metadata']
        assert figures == (size['Parameters'], size['FLOPs']), name


def test_configs_name_the_accuracies_of_the_metafile():
    for name, model in PUBLISHED.items():
        assert model['Config'] == f'configs/{name}.py'
        with open(osp.join(ROOT, model['Config'])) as file:
            text = file.read()
        assert str(accuracies(model)[0]).rstrip('0') in text, name


def test_hub_has_the_variants_beside_mmpretrains():
    listed = mmpretrain.list_models('*deit*')
    assert set(PUBLISHED) < set(listed)
    others = 'deit3', 'levit', 'efficientformer', 'repvit', 'fastvit'
    own = [name for name in hub.variants() if not name.startswith(others)]
    assert set(own) == set(PUBLISHED)
    for name in set(listed) - set(hub.variants()):
        assert 'deit_plugin' not in ModelHub.get(name).filepath
    theirs = ModelHub.get('deit-tiny_4xb256_in1k').config.model
    assert theirs.backbone.type == 'VisionTransformer'
    with_weights = [name for name in hub.variants(published_weights=True) if name in own]
    assert set(with_weights) == {name for name, model in PUBLISHED.items() if 'Weights' in model}


@pytest.mark.slow
@pytest.mark.parametrize('name', PUBLISHED)
def test_variant_builds_with_the_published_parameters(name):
    info = ModelHub.get(name)
    assert info.weights == PUBLISHED[name].get('Weights')
    with torch.device('meta'):
        model = MODELS.build(dict(info.config.model, train_cfg=None))
    count = sum(p.numel() for p in model.parameters())
    assert count == PUBLISHED[name]['Metadata']['Parameters']
    assert type(model.backbone).__name__ == 'DeiT'


def test_importing_again_is_harmless():
    before = mmpretrain.list_models()
    importlib.reload(hub)
    hub.register()
    assert mmpretrain.list_models() == before


@pytest.fixture(scope='module')
def peer():
    torch.manual_seed(0)
    return shuffle_weights(timm.create_model('deit_tiny_distilled_patch16_224')).eval()


@pytest.fixture(scope='module')
def weights(peer, tmp_path_factory):
    """A folder with the file as facebookresearch/deit publishes it."""
    folder = tmp_path_factory.mktemp('weights')
    torch.save(dict(model=peer.state_dict()), folder / FILE)
    return folder


def make_image(path, i, side=300):
    generator = np.random.default_rng(i)
    pixels = generator.integers(0, 256, (4 + i, 5, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((side + 17 * i, side), Image.Resampling.BICUBIC).save(path)
    return path


@torch.no_grad()
def logits(peer, path):
    with Image.open(path) as image:
        return peer(TRANSFORM(image.convert('RGB'))[None])[0]


@pytest.fixture(scope='module')
def data(peer, tmp_path_factory):
    """Images in folders of their first, third and last class for the peer,
    and what it reaches on them."""
    root = tmp_path_factory.mktemp('data')
    names = ['0.png', '1.JPEG', 'of a day/2 ä.jpg', '3.png', '4.png', '5.jpg', '6.png']
    ranks = [0, 0, 0, 2, 2, 999, 999]
    for i, (name, rank) in enumerate(zip(names, ranks)):
        path = make_image(root / name.replace('/', '_'), i)
        label = logits(peer, path).argsort(descending=True)[rank]
        final = root / 'val' / SYNSETS[label] / name
        final.parent.mkdir(parents=True, exist_ok=True)
        path.rename(final)
    (final.parent / 'notes.txt').write_text('no image')
    (root / 'val' / 'list.txt').write_text('no folder')
    measured = reached(peer, root / 'val', SYNSETS)
    assert 0 < measured[0] < measured[1] < 100
    return root, measured


def reached(peer, folder, classes):
    """Top-1 and top-5, in percent."""
    hits = []
    for path in sorted(folder.rglob('*.*')):
        if path.suffix != '.txt':
            label = classes.index(path.relative_to(folder).parts[0])
            order = logits(peer, path).argsort(descending=True).tolist()
            hits.append((label in order[:1], label in order[:5]))
    return tuple(100 * np.mean(hits, axis=0))


def evaluate(names, data, weights=None, **kwargs):
    return zoo.evaluate(names, str(data), weights and str(weights), workers=0, **kwargs)


def test_logits_of_published_weights_are_timms(weights, peer):
    model = get_model(TINY, pretrained=str(weights / FILE))
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        tokens = model.backbone(images)
        ours = model.head(model.neck(tokens) if model.with_neck else tokens)
        theirs = peer(images)
        if isinstance(ours, tuple):
            ours = sum(ours) / len(ours)
        scores = model.predict(images)[0].pred_score
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    torch.testing.assert_close(scores, theirs[0].softmax(0), atol=1e-5, rtol=0)


@pytest.fixture(scope='module')
def inferencer(weights):
    return ImageClassificationInferencer(TINY, pretrained=str(weights / FILE), device='cpu')


@pytest.mark.parametrize('i', range(3))
def test_inference_is_timms(inferencer, peer, tmp_path, i):
    path = make_image(tmp_path / 'image.png', i)
    expected = logits(peer, path)
    names = ImageNetInfo('imagenet-1k')
    for result in (inferencer(str(path))[0], inference_model(inferencer.model, str(path))):
        assert result['pred_label'] == expected.argmax()
        np.testing.assert_allclose(result['pred_scores'], expected.softmax(0), atol=1e-5)
        described = names.index_to_description(result['pred_label'])
        assert described.startswith(result['pred_class'].split(',')[0])


def test_inference_by_name(weights, peer, tmp_path, monkeypatch):
    """With the published weights, here as if downloaded before."""
    cache = tmp_path / 'checkpoints'
    cache.mkdir()
    shutil.copy(weights / FILE, cache)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr('deit_plugin.checkpoints.downloads._check_hash', lambda *args: None)
    path = make_image(tmp_path / 'image.png', 4)
    result = inference_model(TINY, str(path))
    assert result['pred_label'] == logits(peer, path).argmax()


@pytest.fixture
def with_a_broken_image(data, tmp_path):
    root = shutil.copytree(data[0] / 'val', tmp_path / 'val')
    path = sorted(root.rglob('*.png'))[0]
    shutil.copy(path, path.with_name('broken.png'))
    path.with_name('broken.png').write_bytes(path.read_bytes()[:100])
    return tmp_path


def test_a_broken_image_is_named(with_a_broken_image, weights):
    (result,) = evaluate([TINY], with_a_broken_image, weights)
    assert re.search(r"The image '.*broken\.png' is broken: ", result['error'])


def test_broken_images_are_left_out_and_counted(with_a_broken_image, data, weights, capsys):
    (result,) = evaluate([TINY], with_a_broken_image, weights, skip_broken=True)
    assert result['images'] == 7 and len(result['broken']) == 1 and 'broken.png' in result['broken'][0]
    assert result['measured']['top1'] == pytest.approx(data[1][0])
    assert '1 broken images are left out' in capsys.readouterr().err


@pytest.mark.parametrize(
    'name, value, reason',
    [
        ('head.weight', [[1.0]] * 3, r'The checkpoint does not fill'),
        ('module.head.weight', torch.ones(3), r'holds module\.head\.weight, and the same without'),
    ],
)
def test_a_head_that_is_none_is_told(name, value, reason, data, weights, tmp_path):
    checkpoint = torch.load(weights / FILE)
    checkpoint['model'][name] = value
    torch.save(checkpoint, tmp_path / 'a.pth')
    (result,) = evaluate([TINY], data[0], tmp_path / 'a.pth')
    assert re.match(f'ValueError: .*{reason}', result['error'], re.S)


def test_what_cannot_be_written_is_noticed_at_once(data, weights, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(FileExistsError, match='/dev/null is a folder or a device'):
        evaluate([TINY], data[0], weights, output='/dev/null', force=True)
    with pytest.raises(OSError, match='--json .* cannot be written'):
        evaluate([TINY], data[0], weights, output=str(tmp_path / 'file' / 'results.json'))


def test_names_that_are_not_utf_8(tmp_path, weights):
    folder = os.fsencode(tmp_path / 'val' / 'cat')
    os.makedirs(folder)
    with open(os.path.join(folder, b'\xff.png'), 'wb') as file:
        file.write(b'x')
    with pytest.raises(ValueError, match=r'not lines of UTF-8 .*rename them.*udcff'):
        evaluate([TINY], tmp_path, weights)


@pytest.mark.slow
def test_evaluate_goes_on_after_a_failure(data, weights, tmp_path, capsys):
    folder, report = tmp_path / 'weights', tmp_path / 'report.json'
    folder.mkdir()
    (folder / FILE).symlink_to(weights / FILE)
    (folder / 'deit_small.pth').write_bytes((weights / FILE).read_bytes()[:5000])
    root, measured = data
    status = main(
        [
            'evaluate',
            'deit_small',
            'deit_tiny',
            TINY,
            'deit_base_hard_cls',
            '--data',
            str(root),
            '--weights',
            str(folder),
            '--json',
            str(report),
            '--batch-size',
            '3',
            '--workers',
            '2',
        ]
    )
    assert status == 1
    output = capsys.readouterr().out
    damaged, missing, result, other = json.loads(report.read_text())

    assert [damaged['name'], missing['name']] == ['deit_small', 'deit_tiny']
    assert re.match(
        r'ValueError: \S*deit_small.pth cannot be read, it is '
        r'damaged.*5000 bytes',
        damaged['error'],
    )
    assert re.match(
        'FileNotFoundError: .* has none of '
        'deit_tiny_patch16_224-a1311bcf.pth, deit_tiny.pth, .*'
        'deit_tiny.safetensors',
        missing['error'],
    )
    assert 'deit_base_hard_cls.pth' in other['error']

    assert result['name'] == TINY
    assert result['published'] == dict(top1=74.476, top5=91.92)
    assert result['measured'] == pytest.approx(dict(zip(('top1', 'top5'), measured)))
    assert result['difference'] == pytest.approx(measured[0] - 74.476)
    assert result['parameters'] == 5910800
    assert result['images'] == 7 and result['images_per_second'] > 0
    assert result['weights'] == str(folder / FILE)

    lines = [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in output.splitlines()
        if line.startswith('|')
    ]
    assert len(lines) == 6 and len({len(line) for line in lines}) == 1
    assert lines[2][0] == 'deit_small' and 'damaged' in lines[2][1]
    assert lines[3][1].startswith('failed: FileNotFoundError')
    assert lines[4][:5] == [
        TINY,
        '74.5 / 91.9',
        f'{measured[0]:.2f} / {measured[1]:.2f}',
        f'{measured[0] - 74.476:+.2f}',
        '5.91M',
    ]


def save_safetensors(source, folder):
    weights = torch.load(source)['model']
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / f'{TINY}.safetensors')


def save_folder(source, folder):
    convert(str(source), str(folder / TINY), to='transformers')


@pytest.mark.slow
@pytest.mark.parametrize('save', [save_safetensors, save_folder])
def test_weights_by_the_name_of_the_variant(data, weights, tmp_path, save):
    save(weights / FILE, tmp_path)
    root, measured = data
    (result,) = evaluate([TINY], root / 'val', tmp_path)
    assert tuple(result['measured'].values()) == pytest.approx(measured)
    assert osp.basename(result['weights']).startswith(TINY)


@pytest.fixture(scope='module')
def of_three_classes(tmp_path_factory):
    root = tmp_path_factory.mktemp('three')
    torch.manual_seed(1)
    peer = shuffle_weights(timm.create_model('deit_tiny_patch16_224', num_classes=3)).eval()
    torch.save(peer.state_dict(), root / 'deit_tiny.pth')
    classes = ['ant', 'bee', 'cow']
    for i in range(5):
        path = make_image(root / f'{i}.png', i, side=230)
        best = int(logits(peer, path).argmax())
        label = best if i < 2 else (best + 1) % 3
        path.rename(make_image(root / 'data' / classes[label] / f'{i}.png', i))
    for name in classes:
        make_image(root / 'data' / name / 'another.png', 7)
    return root, peer, classes


def test_fine_tuned_on_other_classes(of_three_classes):
    root, peer, classes = of_three_classes
    (result,) = evaluate(['deit_tiny'], root / 'data', root)
    top1 = reached(peer, root / 'data', classes)[0]
    assert 0 < top1 < 100
    assert result['measured'] == pytest.approx(dict(top1=top1))
    assert result['images'] == 8


def test_folders_that_are_not_of_the_classes(of_three_classes, weights, tmp_path, capsys):
    for name in ('n01440764', 'n01443537', 'n01484850', 'other'):
        make_image(tmp_path / name / 'image.png', 0, side=32)
    (few,) = evaluate(['deit_tiny'], tmp_path, of_three_classes[0])
    (many,) = evaluate([TINY], tmp_path, weights)
    for result, classes in (few, 3), (many, 1000):
        assert result.keys() == {'name', 'error'}
        assert re.match(
            f'ValueError: the model has {classes} classes, but there are 4 '
            r'folders \(n01440764, .*, other\)',
            result['error'],
        )
    assert '4 folders' in capsys.readouterr().out


def test_a_config_of_ones_own(data, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(f"""
_base_ = [{osp.join(ROOT, 'configs', 'deit_tiny.py')!r}]
model = dict(
    backbone=dict(arch=dict(_delete_=True, **{ARCH!r}), patch_size=32),
    head=dict(in_channels={ARCH['embed_dims']}))
""")
    model = shuffle_weights(MODELS.build(Config.fromfile(path).model))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'mine.pth')
    (result,) = evaluate([str(path)], data[0], tmp_path)
    assert result['published'] == {} and result['difference'] is None
    assert result['measured'].keys() == {'top1', 'top5'}
    assert result['parameters'] == sum(p.numel() for p in model.parameters())
    row = zoo.table([result]).splitlines()[2]
    assert '| - / - |' in row and '| - |' in row


def test_all_with_published_weights_by_default(data, tmp_path):
    results = evaluate([], data[0], tmp_path)
    assert [r['name'] for r in results] == [name for name, model in PUBLISHED.items() if 'Weights' in model]
    assert all('has none of' in r['error'] for r in results)


def test_a_pattern_stands_for_all_of_its_name_with_published_weights(data, tmp_path):
    results = evaluate(['repvit_m1_?', 'deit3_small'], data[0], tmp_path)
    assert [r['name'] for r in results] == ['repvit_m1_0', 'repvit_m1_1', 'repvit_m1_5', 'deit3_small']
    with pytest.raises(ValueError, match=r"\['resnet\*'\] are no variants"):
        evaluate(['resnet*'], data[0], tmp_path)


def test_weights_that_are_not_published(data):
    (result,) = evaluate(['deit_tiny_soft_cls'], data[0])
    assert (
        'the weights of deit_tiny_soft_cls are not published' in result['error']
        and '--weights' in result['error']
    )


def test_unknown_name(data, capsys):
    assert main(['evaluate', TINY, 'deit_huge', '--data', str(data[0])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("deit-plugin: ['deit_huge'] are no variants")
    assert all(name in error for name in PUBLISHED)


def test_report_is_replaced_only_by_force(data, tmp_path, capsys):
    report = tmp_path / 'report.json'
    report.write_text('precious')
    arguments = [
        'evaluate',
        TINY,
        '--data',
        str(data[0]),
        '--weights',
        str(tmp_path),
        '--json',
        str(report),
    ]
    assert main(arguments) == 2
    assert '--force' in capsys.readouterr().err
    assert report.read_text() == 'precious'
    assert main([*arguments, '--force']) == 1
    assert json.loads(report.read_text())[0]['name'] == TINY


def test_folders_that_are_not_there(tmp_path, capsys):
    (tmp_path / 'class').mkdir()
    (tmp_path / 'class' / 'notes.txt').touch()
    absent = str(tmp_path / 'absent')
    for arguments, message in [
        (['--data', str(tmp_path)], 'holds no images: there must be one'),
        (['--data', absent], f'--data {absent!r} is not a folder'),
        (['--data', str(tmp_path), '--weights', absent], f'--weights {absent!r} is not there'),
    ]:
        assert main(['evaluate', TINY, *arguments]) == 2
        assert message in capsys.readouterr().err


def files_below(folder):
    return {
        osp.relpath(osp.join(parent, name), folder)
        for parent, _, names in os.walk(folder, followlinks=True)
        for name in names
        if '__pycache__' not in parent
    }


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The wheel of the repository, unpacked in a folder of its own."""
    root = tmp_path_factory.mktemp('wheel')
    source = root / 'source'
    source.mkdir()
    for name in ('deit_plugin', 'configs'):  # building writes to its source
        shutil.copytree(
            osp.join(ROOT, name),
            source / name,
            symlinks=True,
            ignore=shutil.ignore_patterns('__pycache__'),
        )
    for name in ('setup.cfg', 'pyproject.toml', 'model-index.yml', 'README.md', 'LICENSE'):
        shutil.copy(osp.join(ROOT, name), source)
    pip = [sys.executable, '-m', 'pip']
    offline = ['--quiet', '--no-deps', '--no-index']
    subprocess.run(
        [*pip, 'wheel', *offline, '--no-build-isolation', '--wheel-dir', str(root), str(source)],
        check=True,
    )
    (wheel,) = root.glob('*.whl')
    subprocess.run([*pip, 'install', *offline, '--target', str(root / 'site'), str(wheel)], check=True)
    shutil.rmtree(source)
    return root / 'site'


def run(site, folder, *command):
    result = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.mark.slow
def test_wheel_has_the_configs(installed):
    inside = installed / 'deit_plugin' / '.mim'
    assert files_below(inside / 'configs') == files_below(osp.join(ROOT, 'configs'))
    assert not any(path.is_symlink() for path in inside.rglob('*'))
    assert (inside / 'model-index.yml').is_file()
    (info,) = installed.glob('deit_plugin-*.dist-info')
    (script,) = PathDistribution(info).entry_points
    assert (script.group, script.name, script.value) == (
        'console_scripts',
        'deit-plugin',
        'deit_plugin.__main__:main',
    )


USE = """
import sys, torch
import deit_plugin
from deit_plugin.__main__ import main
from mmpretrain import get_model
assert deit_plugin.__file__.startswith(sys.argv[1]), deit_plugin.__file__
model = get_model('deit_tiny')
print(sum(p.numel() for p in model.parameters()))
"""


@pytest.mark.slow
def test_wheel_works_by_itself(installed, tmp_path):
    python = sys.executable
    output = run(installed, tmp_path, python, '-c', USE, str(installed))
    assert output.split()[-1] == '5717416'

    peer = timm.create_model('deit_tiny_patch16_224', depth=1, embed_dim=64, num_heads=2, num_classes=2)
    torch.save(dict(model=peer.state_dict()), tmp_path / 'tiny.pth')
    run(
        installed,
        tmp_path,
        python,
        '-m',
        'deit_plugin',
        'convert',
        'tiny.pth',
        'tiny',
        '--to',
        'transformers',
        '--num-heads',
        '2',
    )
    assert (tmp_path / 'tiny' / 'model.safetensors').is_file()


@pytest.mark.slow
def test_mim_trains_by_a_bare_name(installed, tmp_path):
    mim = osp.join(osp.dirname(sys.executable), 'mim')
    options = ['train_dataloader.dataset.indices=64', 'train_cfg.max_epochs=1']
    options = ['--work-dir', 'run', '--cfg-options', *options, 'param_scheduler.0.warmup_epochs=0']
    said = run(installed, tmp_path, mim, 'train', 'deit_plugin', 'deit_digits.py', *options)
    assert str(installed) in said and 'Training is done' in said
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
    tools = files_below(installed / 'deit_plugin' / '.mim' / 'tools')
    assert (
        tools
        == files_below(osp.join(ROOT, 'deit_plugin', '.mim', 'tools'))
        > {'train.py', 'publish_model.py'}
    )
    said = run(installed, tmp_path, mim, 'run', 'deit_plugin', 'publish_model', 'run/epoch_1.pth', 'mine.pth')
    assert 'mine_' in said and list(tmp_path.glob('mine_*.pth'))


@pytest.mark.slow
def test_mim_finds_the_variants_in_the_wheel(installed, tmp_path):
    mim = osp.join(osp.dirname(sys.executable), 'mim')
    run(installed, tmp_path, mim, 'search', 'deit_plugin', '--json', 'all')
    found = json.loads((tmp_path / 'all').read_text())
    listed = glob.glob(osp.join(ROOT, 'configs', '**', 'metafile.yml'), recursive=True)
    models = [model for path in listed for model in yaml.safe_load(open(path))['Models']]
    assert len(listed) == 3
    assert found['config'] == {model['Name']: model['Config'] for model in models}
    weights = osp.basename(PUBLISHED['deit_tiny']['Weights'])
    (tmp_path / weights).touch()  # so that nothing is downloaded
    run(installed, tmp_path, mim, 'download', 'deit_plugin', '--config', 'deit_tiny', '--dest', '.')
    cfg = Config.fromfile(tmp_path / 'deit_tiny.py')
    expected = Config.fromfile(osp.join(ROOT, 'configs', 'deit_tiny.py'))
    assert cfg.model == expected.model and cfg.test_dataloader
    assert (tmp_path / weights).stat().st_size == 0
