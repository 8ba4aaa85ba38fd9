"""docs/ecosystem.md: one model of this package by others' means, and theirs by this one's."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from conftest import build, make_batch, step
from hub import hub
from mmengine.config import Config
from mmpretrain import get_model
from PIL import Image
from running import IMAGE, RUN, SHORT, commands, example, make_demo, python, run, write

from deit_plugin.apis.predict import Predictor
from deit_plugin.models.teacher import Teacher

CONFIG = str(RUN / 'digits_distilled_folder.py')


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = make_demo(tmp_path_factory.mktemp('demo'))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for heading in ('Hugging Face', 'timm'):
            run(commands(example(heading, language='bash'))[0])
    return folder


@pytest.fixture(autouse=True)
def there(demo, monkeypatch):
    monkeypatch.chdir(demo)


@pytest.fixture
def own():
    """The demo's model."""
    return get_model(CONFIG, pretrained=str(RUN))


def batch():
    return make_batch(8, side=16, num_classes=10)


@pytest.mark.tool('mmpretrain', 'in Python')
def test_mmpretrain_gives_the_probabilities_and_the_tokens(own):
    seen = python(example('mmpretrain in Python'))
    predictor = Predictor(str(RUN))
    expected = predictor.probabilities(predictor.prepare([IMAGE]))['prediction'][0]
    torch.testing.assert_close(torch.tensor(seen['result']['pred_scores']), expected)
    with torch.no_grad():
        logits = own.head(seen['tokens'])
    torch.testing.assert_close(logits.softmax(-1).flatten(), expected)


@pytest.mark.tool('transformers', '`pipeline`')
def test_pipeline_of_transformers_gives_our_logits(own):
    """By the same pixels, as transformers enlarges these small images by Pillow."""
    pytest.importorskip('transformers')
    seen = python(example('Hugging Face'))
    classify = seen['classify']
    pixels = classify.preprocess(IMAGE)['pixel_values']
    with torch.no_grad():
        logits, theirs = own(pixels), classify.model(pixels).logits
    torch.testing.assert_close(logits, theirs, rtol=0, atol=1e-5)
    scores = logits.softmax(-1).flatten()
    for answer in seen['answers']:
        assert answer['score'] == pytest.approx(scores[int(answer['label'])].item(), abs=1e-5)


@pytest.mark.tool('transformers', 'weights')
def test_a_folder_of_transformers_is_read_back(own):
    """The folder that was written is read like any checkpoint."""
    back = get_model(CONFIG, pretrained='hub/digits').state_dict()
    assert all(torch.equal(value, back[name]) for name, value in own.state_dict().items())


@pytest.mark.tool('transformers', 'as teacher')
def test_a_model_of_transformers_teaches(own, monkeypatch):
    """Its answers are those of the model from which it was made, renormalised."""
    cfg = Config.fromfile(write('hugging.py', example('Hugging Face', 1)))
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = build(cfg.model).train()
    answers, ask = [], Teacher.__call__
    monkeypatch.setattr(Teacher, '__call__', lambda self, x: answers.append(ask(self, x)) or answers[-1])
    given = batch()
    losses = step(model, given)
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert losses['loss_distill'].isfinite() and model.backbone.dist_token.grad.abs().sum() > 0
    with torch.no_grad():
        expected = own(own.data_preprocessor(given)['inputs'])
    torch.testing.assert_close(answers[0], expected, rtol=0, atol=1e-4)


@pytest.fixture
def large(tmp_path):
    """The digits in the model's size, so that nobody resizes."""
    for path in Path('data/digits/val').rglob('*.png'):
        target = tmp_path / 'val' / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((16, 16), Image.Resampling.BICUBIC).save(target)
    return tmp_path


@pytest.fixture
def measured(large):
    run(['deit-plugin', 'evaluate', '--data', str(large), '--weights', str(RUN), '--workers', '0',
         '--json', str(large / 'ours.json')])  # fmt: skip
    return json.loads((large / 'ours.json').read_text())[0]['measured']['top1']


@pytest.mark.tool('timm', 'in Python')
def test_timm_measures_our_accuracy(large, measured):
    code = example('timm', folder=f'data/digits/val -> {large}/val')
    assert python(code)['top1'].item() == pytest.approx(measured, abs=1e-4)
    assert 10 < measured < 90, measured  # neither chance nor certainty


@pytest.mark.tool('timm', '`validate.py`')
def test_validate_of_timm_measures_our_accuracy(large, measured, monkeypatch):
    """By timm's own script, whose path is in `VALIDATE`."""
    if 'VALIDATE' not in os.environ:
        pytest.skip("timm's wheel has no validate.py: set VALIDATE to its path")
    command = commands(example('timm', language='bash', folder=f'data/digits/val -> {large}/val'))[1]
    assert command[:2] == ['python', 'validate.py']
    result = large / 'theirs.json'
    more = ['--results-file', str(result), '--results-format', 'json', '--workers', '0']
    monkeypatch.setattr(sys, 'argv', [os.environ['VALIDATE'], *command[2:], *more])
    runpy.run_path(os.environ['VALIDATE'], run_name='__main__')
    assert json.loads(result.read_text())['top1'] == pytest.approx(measured, abs=1e-3)


@pytest.mark.tool('mmpretrain', 'LoRA')
def test_lora_of_mmpretrain_trains_adapters_and_head(own):
    """Only adapters and head are trained and saved, and the script adds up what was trained."""
    write('lora.py', example('LoRA'))
    train, merge, strip, evaluate = commands(example('LoRA', language='bash', epoch='epoch_30 -> epoch_1'))
    run(train, *SHORT, 'optim_wrapper.optimizer.lr=0.02')
    saved = torch.load('work_dirs/lora/epoch_1.pth')['state_dict']
    assert all('.lora_' in name or name.startswith('head.') for name in saved)
    assert saved['backbone.module.layers.3.attn.qkv.lora_up.weight'].abs().sum() > 0
    run(merge), run(strip), run([*evaluate, '--workers', '0'])
    lora = build(Config.fromfile('work_dirs/lora/lora.py').model).eval()  # with ten classes
    lora.load_state_dict(saved, strict=False)
    base, images = own.backbone.state_dict(), torch.randn(2, 3, 16, 16)
    for name, value in lora.backbone.module.named_parameters():
        if '.lora_' not in name:
            assert torch.equal(value, base[name.replace('.original_layer', '')])
    merged = get_model(CONFIG, pretrained='merged.pth')
    with torch.no_grad():
        torch.testing.assert_close(merged(images), lora(images), rtol=0, atol=1e-5)
        assert not torch.allclose(merged(images), own(images), atol=1e-3)


@pytest.mark.tool('peft')
def test_lora_of_peft_trains_its_adapters(own):
    pytest.importorskip('peft')
    model = python(example('LoRA', 1))['model']
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.eval()(images), own(images))  # as long as they are zero
    losses = step(model.train(), batch())
    losses['loss'].backward()
    trained = {name for name, value in model.backbone.named_parameters() if value.requires_grad}
    assert len(trained) == 8 and all('.lora_' in name for name in trained)
    assert model.backbone.layers[0].attn.qkv.lora_B.default.weight.grad.abs().sum() > 0


@pytest.mark.tool('huggingface_hub')
def test_a_hub_gets_the_whole_folder(tmp_path):
    """What arrives there is what `pipeline` loads."""
    with hub(tmp_path) as address:
        python(example('Publishing', hub=f"HfApi() -> HfApi('{address}', token='none')"))
    assert len(list(tmp_path.iterdir())) == 3
    seen = python(example('Hugging Face', folder=f'hub/digits -> {tmp_path}'))
    assert len(seen['answers']) == 5
