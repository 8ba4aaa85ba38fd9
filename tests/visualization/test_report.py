"""A page about an evaluation, in a browser where there is one."""

import base64
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from deit_plugin.visualization.report import Answer, Section, report

NAMES = ['cat', '<b>dog</b>', 'owl & "co"']


@pytest.fixture
def page(tmp_path):
    paths = [str(tmp_path / f'{i}<i>.png') for i in range(4)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((300, 20, 3), 50 * i, dtype=np.uint8)).save(path)
    answers = [
        Answer(paths[0], 0, 0, 0.9),
        Answer(paths[1], 0, 1, 0.4),
        Answer(paths[2], 1, 2, 0.8),
        Answer(paths[3], 1, 2, 0.7),
    ]
    return report([Section('mine', 'a line', NAMES, answers)], 'A <title>')


def test_it_needs_no_other_file_and_runs_nothing(page):
    assert not re.search(r'(src|href)="(?!data:)', page) and '<script' not in page and 'url(' not in page
    assert '<b>dog</b></' not in page and 'A &lt;title&gt;' in page


def test_mistakes_are_ordered_by_confidence(page):
    assert re.findall(r'\((\d+) %\)', page) == ['80', '70', '40']
    assert '3 of 4 images are classified wrongly' in page


def test_what_is_confused_most(page):
    rows = page.partition('What is confused most')[2].partition('</table>')[0].split('<tr>')[2:]
    cells = [re.findall(r'<t[hd]>(.*?)</t[hd]>', row) for row in rows]
    dog, owl = '&lt;b&gt;dog&lt;/b&gt;', 'owl &amp; &quot;co&quot;'
    assert cells == [[dog, owl, '2'], ['cat', dog, '1']]


def test_pictures_are_in_the_page(page):
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 3
    with Image.open(io.BytesIO(base64.b64decode(pictures[0]))) as image:  # the most confident one
        assert image.size[1] == 200
        assert abs(int(np.asarray(image).mean()) - 100) < 3


def test_without_mistakes():
    text = report([Section('mine', '', ['a'], [Answer('x.png', 0, 0, 1.0)])])
    assert '0 of 1 images are classified wrongly' in text and 'most confident' not in text


def test_of_many_classes_the_pairs_alone(tmp_path):
    path = str(tmp_path / 'x.png')
    Image.new('RGB', (8, 8)).save(path)
    answers = [Answer(path, i, (i + 1) % 40, 0.5) for i in range(40)]
    text = report([Section('mine', '', [str(i) for i in range(40)], answers)])
    assert 'Confusion matrix' not in text and 'What is confused most' in text


def test_a_browser_shows_it(page, tmp_path):
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    if browser is None:
        pytest.skip('needs chromium')
    (tmp_path / 'page.html').write_text(page)
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-sync']
    options += ['--disable-background-networking', '--disable-component-update', '--disable-quic']
    options += [f'--user-data-dir={tmp_path / "browser"}', '--virtual-time-budget=2000', '--dump-dom']
    shown = subprocess.run(
        [browser, *options, f'file://{tmp_path}/page.html'], capture_output=True, text=True, timeout=120
    ).stdout
    rows = re.findall(r'<tr>(.*?)</tr>', shown.partition('Confusion matrix')[2].partition('</table>')[0])
    cells = [re.findall(r'<td[^>]*>(\d*)</td>', row) for row in rows[1:]]
    assert cells == [['1', '1', ''], ['', '', '2'], ['', '', '']]
    assert shown.count('<img') == 3 and '<i>' not in shown
