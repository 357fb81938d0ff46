"""Studies and features of one's own, without touching bm; the page about them runs as written."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import pandas as pd
import pytest
from doc_blocks import Block, blocks_of, commands_of
from helpers import SmallRecording, tell_story

from bm.build import build_data, build_features
from bm.config import from_hydra
from bm.core import plugins
from bm.core.plugins import load_plugins
from bm.features import registry as features
from bm.features.base import register as register_feature
from bm.studies import Study, registry
from bm.studies.base import register
from bm.train import main as experiment
from scripts import check_study

FEATURE = '''
from bm.features.base import EventFeature, register


@register
class {name}(EventFeature):
    """Letters of each word."""

    def values(self, events):
        return events["word"].str.len().to_numpy(float)[:, None]
'''


@pytest.fixture
def page(root) -> list[Block]:
    return blocks_of(root / "docs" / "adding-a-study.md")


@pytest.fixture(autouse=True)
def _registries_as_they_were(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(plugins, "_loaded", set())
    before = [dict(known) for known in (registry, features)]
    yield
    for known, content in zip((registry, features), before, strict=True):
        for name in known.keys() - content.keys():
            del known[name]


def test_page_runs_as_it_is_written(page, tmp_path, monkeypatch, capsys, python_env):
    make_data, study = (block.text for block in page if block.language == "python")
    (tmp_path / "make_data.py").write_text(make_data)
    (tmp_path / "story.py").write_text(study)
    monkeypatch.chdir(tmp_path)
    check, train = (block for block in page if block.language == "bash")
    (make, checked), (trained,) = commands_of(check), commands_of(train)
    subprocess.run([sys.executable, *make[1:]], check=True, env=python_env, capture_output=True)
    assert checked[:3] == ["python", "-m", "scripts.check_study"]
    assert check_study.main(checked[3:]) == 0
    (shown,) = (block.text for block in page if block.language == "" and "All is" in block.text)
    assert capsys.readouterr().out == shown
    assert trained[:2] == ["dora", "run"]
    config = from_hydra(experiment.get_xp(trained[2:]).cfg)
    splits = build_data(config, "cpu").splits
    assert splits.recordings == ["story/ann-listening", "story/bob-listening"]
    tables = [dataset.table for dataset in splits.datasets.values()]
    of_split = [set(table["word_sequence"].dropna()) for table in tables]
    assert not of_split[0] & of_split[2]
    assert all(len(table) for table in tables)


def test_feature_of_a_file_is_found_by_its_name(tmp_path):
    (tmp_path / "letters.py").write_text(FEATURE.format(name="Letters"))
    load_plugins(["letters.py"], tmp_path)
    load_plugins(["letters.py"], tmp_path)  # once is enough
    config = from_hydra(experiment.get_xp(["dset.features=[Letters]"]).cfg)
    (feature,) = build_features(config)
    assert feature.values(pd.DataFrame({"word": ["bird", "sea"]})).tolist() == [[4.0], [3.0]]


def test_configuration_names_plugins(tmp_path):
    (tmp_path / "syllables.py").write_text(FEATURE.format(name="Syllables"))
    arguments = ["dset.features=[Syllables]", f"plugins=[{tmp_path / 'syllables.py'}]"]
    (feature,) = build_features(from_hydra(experiment.get_xp(arguments).cfg))
    assert feature.name == "Syllables"


def test_installed_packages_bring_plugins(tmp_path, monkeypatch):
    (tmp_path / "package_of_plugins.py").write_text(FEATURE.format(name="OfAPackage"))
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("mine", "package_of_plugins", plugins.GROUP)
    monkeypatch.setattr(
        plugins, "entry_points", lambda group: [point] if group == point.group else []
    )
    load_plugins([])
    assert "OfAPackage" in features


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"there is no Python file .*mine\.py"),
        (
            "import absent_package",
            r"mine\.py can't be imported \(ModuleNotFoundError.*absent_package",
        ),
        (FEATURE.format(name="MelSpectrum"), "There is a feature 'MelSpectrum' already, in bm"),
    ],
)
def test_faulty_plugin_is_told(tmp_path, text, message):
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_plugins(["mine.py"], tmp_path)
    with pytest.raises(ValueError, match="plugins: absent_module can't be imported"):
        load_plugins(["absent_module"])


class Faulty(Study):
    """Study with faults, one of which a test chooses."""

    name = "faulty_plugin"
    fault = ""
    events: pd.DataFrame

    def recordings(self):
        events = self.events
        if self.fault == "no sentences":
            events = events.drop(columns=["word_sequence"])
        if self.fault == "silent":
            events = events.copy()
            events.loc[events["kind"] == "sound", "duration"] = 20.0
        if self.fault == "no words":
            events = events[events["kind"] == "sound"]
        names = ["a", "a"] if self.fault == "twice" else ["a", "b"]
        if self.fault == "other order":
            names = names[:: 1 if Faulty.turn else -1]
            Faulty.turn = not Faulty.turn
        if self.fault == "none":
            return
        for name in names:
            has_places = self.fault != "no places"
            yield SmallRecording(self.cache, events, name, name, with_positions=has_places)

    turn = False


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    monkeypatch.setitem(registry, Faulty.name, Faulty)
    monkeypatch.setattr(Faulty, "events", tell_story(tmp_path, n_sentences=30), raising=False)
    return [Faulty.name, f"cache={tmp_path / 'cache'}", "dset.features=[MelSpectrum]"]


@pytest.mark.parametrize(
    ("fault", "state", "message"),
    [
        ("", "ok", "All is as it should be"),
        ("none", "fail", "recordings   none"),
        ("twice", "fail", "small/a comes twice"),
        ("other order", "fail", "another order when asked again"),
        ("no sentences", "fail", "small/a: no word_sequence"),
        ("silent", "warn", "begin while no sound plays"),
        ("no words", "fail", "small/a: No event opens a block"),
        ("no places", "warn", "6, 0 with a place"),
    ],
)
def test_check_finds_what_is_wrong_with_a_study(faulty, fault, state, message, monkeypatch, capsys):
    monkeypatch.setattr(Faulty, "fault", fault)
    code = check_study.main(faulty)
    printed = capsys.readouterr().out
    assert code == (state == "fail")
    assert re.search(f"^{state} .*{message}|^{message}", printed, re.MULTILINE), printed


def test_check_tells_wrong_arguments(capsys, tmp_path):
    assert check_study.main(["--help"]) == 0
    assert check_study.main(["selections=[fake]"]) == 2
    assert "the first argument" in capsys.readouterr().err
    assert check_study.main(["fake", "recording=1"]) == 2
    assert check_study.main(["unheard_of", f"cache={tmp_path}"]) == 1
    assert "study='unheard_of' does not exist" in capsys.readouterr().out


def test_names_are_taken_once():
    class Alien(Study):
        name = "bids"

    Alien.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="There is a study 'bids' already, in bm.studies.bids"):
        register(Alien)
    with pytest.raises(ValueError, match="There is a feature 'MelSpectrum' already"):
        register_feature(type("MelSpectrum", (features["Pitch"],), {"__module__": "elsewhere"}))
