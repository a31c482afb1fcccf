# Copyright (c) mmdfkd contributors. Licensed under the Apache License 2.0.
import runpy
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(ROOT / 'tools/misc/model_zoo.py'))


def test_the_page_of_results_is_up_to_date(tool):
    assert (ROOT / tool['PAGE']).read_text(encoding='utf-8') == tool['make_page'](ROOT)


def test_a_column_without_entries_is_left_out(tool, tmp_path):
    (tmp_path / 'model-index.yml').write_text(yaml.dump(dict(Import=['metafile.yml'])))
    metrics = {'Top 1 Accuracy': 98.5, 'Standard Deviation': 0.25, 'Seeds': 3}
    results = [
        dict(Dataset='digits', Metrics=metrics),
        dict(Dataset='MNIST', Metrics=dict(Paper=98)),
    ]
    model = dict(Name='kd_a_b', Config='configs/kd/kd_a_b.py', Results=results)
    (tmp_path / 'metafile.yml').write_text(yaml.dump(dict(Models=[model])))
    page = tool['make_page'](tmp_path)
    link = '[kd_a_b](../../../configs/kd/kd_a_b.py)'
    assert f'| config | ours |\n| --- | ---: |\n| {link} | 98.50 ± 0.25 (3) |\n' in page
    assert f'| config | ours | paper |\n| --- | ---: | ---: |\n| {link} | – | 98.00 |\n' in page


def test_the_page_is_written_and_compared(run_tool, tmp_path):
    model = dict(Name='kd_a_b', Config='configs/kd/kd_a_b.py')
    model['Results'] = [dict(Dataset='digits', Metrics={'Top 1 Accuracy': 98.5})]
    (tmp_path / 'model-index.yml').write_text(yaml.dump(dict(Import=['metafile.yml'])))
    (tmp_path / 'metafile.yml').write_text(yaml.dump(dict(Models=[model])))
    page = tmp_path / 'docs/en/model_zoo/results.md'
    page.parent.mkdir(parents=True)
    command = ['misc/model_zoo.py', '--root', tmp_path]
    with pytest.raises(SystemExit, match='does not agree'):
        run_tool(*command, '--check')
    assert not page.exists()
    assert str(page) in run_tool(*command)
    text = page.read_text(encoding='utf-8')
    assert '| 98.50 (1) |' in text  # of one seed, unless it says otherwise
    assert 'agrees with the metafiles' in run_tool(*command, '--check')
    page.write_text(text.replace('98.50', '98.60'), encoding='utf-8')
    with pytest.raises(SystemExit, match='does not agree'):
        run_tool(*command, '--check')
