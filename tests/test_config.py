"""Configuration: published defaults and signatures, clear errors, no option without an effect."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dora.conf import SlurmConfig
from dora.explore import Launcher
from helpers import with_value
from omegaconf import OmegaConf

from bm.config import (
    CHOICES,
    CONF,
    UNSUPPORTED,
    Config,
    ConfigError,
    default_leaves,
    flatten,
    from_dict,
    from_hydra,
    provenance,
    to_dict,
)
from bm.grids.nmi.main_table import explorer
from bm.train import main

GOLDEN = json.loads((Path(__file__).parent / "golden" / "defaults.json").read_text())
SIGNATURES = {
    "34219380": ["dset.selections=[audio_mous]", "dset.force_uid_assignement=True"],
    "6e3bf7d7": ["dset.selections=[gwilliams2022]"],
    "557f5f8a": ["dset.selections=[broderick2019]", "test.wer_recordings=100"],
    "4395629c": ["dset.selections=[brennan2019]"],
}
EXCLUDED = [
    "wandb.*", "tensorboard", "num_prints", "device", "num_workers", "verbose", "cache",
    "features_models",
]  # fmt: skip


@pytest.fixture(scope="module")
def composed() -> dict[str, Any]:
    """The default experiment, as Hydra composes it."""
    return to_dict(from_hydra(main.get_xp([]).cfg))


def compose(*overrides: str) -> Config:
    return from_hydra(main.get_xp(list(overrides)).cfg)


def leaves_of(name: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(CONF / name))
    for section in ("defaults", "dora", "hydra"):
        values.pop(section, None)
    return flatten(values)


@pytest.mark.parametrize("name", GOLDEN["published"])
def test_every_default_is_pinned(name):
    # A changed default would silently reuse checkpoints of another experiment; a new key goes into
    # "added" of golden/defaults.json, with the published behaviour as its default.
    golden = {**GOLDEN["published"][name], **GOLDEN["added"].get(name, {})}
    leaves = leaves_of(name)
    assert leaves == golden
    for key, value in golden.items():
        assert type(leaves[key]) is type(value), key


def test_groups_are_composed_in_the_published_order():
    defaults = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml").defaults)
    assert defaults == [
        "_self_",
        {"model_defaults": "defaults"},
        {"features_defaults": "features_defaults"},
        {"model": "clip_conv"},
        {"feature_model": "none"},
        {"selections": "selections_definitions"},
        {"study_paths": "study_paths"},
        {"preset": "none"},  # ours: adds nothing
    ]
    assert leaves_of("preset/none.yaml") == {}


def test_dora_leaves_out_of_signatures_what_changes_no_number():
    dora = OmegaConf.load(CONF / "config.yaml").dora
    assert dora.exclude == EXCLUDED
    assert dora.git_save is True
    assert dora.dir == "./outputs"


@pytest.mark.parametrize("signature", SIGNATURES)
def test_published_signatures_name_the_same_experiments(signature):
    argv = ["model=clip_conv", *SIGNATURES[signature], "seed=2036"]
    assert main.get_xp(argv).sig == signature
    elsewhere = ["device=cpu", "num_workers=0", "cache=/tmp/other", "num_prints=1"]
    assert main.get_xp([*argv, *elsewhere]).sig == signature
    assert main.get_xp([*argv, "norm.max_scale=21"]).sig != signature


@pytest.mark.parametrize("wrong", ["dset=3", "optim.lr=${nosuch}"])
def test_wrong_arguments_leave_later_signatures_alone(wrong):
    with pytest.raises(ConfigError):
        main.get_xp([wrong])
    xp = main.get_xp(["seed=7", "preset=demo", "dset.selections=[fake]"])
    assert xp.sig == "24febd4d"
    assert ["dset.selections", ["fake"]] in xp.delta


class Collector:
    """Stands in for Dora's shepherd and herd: only notes what would be scheduled."""

    _job_array_launcher = None

    def __init__(self) -> None:
        self.main = main
        self.argvs: list[list[str]] = []

    def add_sheep(self, shepherd: Any, argv: list[str], slurm: Any, pool: Any) -> None:
        self.argvs.append(argv)


def test_main_table_schedules_the_published_experiments():
    herd = Collector()
    explorer(Launcher(herd, SlurmConfig(), herd))
    assert len(herd.argvs) == 72  # 4 studies, 5 rows and a judgement, 3 seeds
    assert len({tuple(argv) for argv in herd.argvs}) == 72
    plain = [argv for argv in herd.argvs if "seed=2036" in argv and len(argv) <= 4]
    plain = [argv for argv in plain if not any("MelSpectrum" in part for part in argv)]
    assert {main.get_xp(argv).sig for argv in plain} == set(SIGNATURES)


def test_dataclass_defaults_are_those_of_the_files(composed):
    ours = flatten(to_dict(Config()))
    for name in ("config.yaml", "model_defaults/defaults.yaml"):
        for key, value in leaves_of(name).items():
            if not key.startswith("slurm."):  # a free-form group
                assert ours[key] == value, key
    models = ("simpleconv", "convrnn")
    beside = {f"{name}.hidden.{part}" for name in models for part in ("meg", "features")}
    beside.add("task.loss")
    files = {key for name in GOLDEN["published"] for key in leaves_of(name)}
    groups = {key for key, value in ours.items() if value == {}}
    assert set(ours) - files - groups <= beside


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optim.lrr", 1, r"Unknown key optim\.lrr\. Did you mean 'lr'\?"),
        ("dset.test.tmins", 1, r"Unknown key dset\.test\.tmins\. Did you mean 'tmin'\?"),
        ("optin", {}, r"Unknown key optin\. Did you mean 'optim'\?"),
        ("optim.lr", "fast", r"optim\.lr='fast' should be a number"),
        ("optim.epochs", 1.5, r"optim\.epochs=1\.5 should be a whole number"),
        ("optim.epochs", True, r"optim\.epochs=True should be a whole number"),
        ("optim.max_batches", "all", r"optim\.max_batches='all' should be a whole number"),
        ("dset.apply_baseline", 1, r"dset\.apply_baseline=1 should be true or false"),
        ("dset.condition", [1], r"dset\.condition=\[1\] should be a number or a text"),
        ("dset.features", "MelSpectrum", r"dset\.features='MelSpectrum' should be a list"),
        ("dset.features", ["a", 3], r"dset\.features\[1\]=3 should be a text"),
        ("dset.bandpass", ["a"], r"dset\.bandpass\[0\]='a' should be a number"),
        ("norm", 3, r"norm should be a group of keys"),
        ("norm.scaler.per_channel", None, r"norm\.scaler\.per_channel=None should be true or"),
        ("selections.mine", 3, r"selections\.mine=3 should be a group of keys"),
    ],
)
def test_wrong_key_or_type_is_named(composed, key, value, message):
    with pytest.raises(ConfigError, match=message):
        from_dict(with_value(composed, key, value))


def test_whole_numbers_are_numbers(composed):
    config = from_dict(with_value(composed, "norm.max_scale", 100))
    assert config.norm.max_scale == 100.0
    assert type(config.norm.max_scale) is float


@pytest.mark.parametrize("key", CHOICES)
def test_what_is_not_available_is_refused_with_what_is(composed, key):
    cfg = OmegaConf.create(with_value(composed, key, "clipp"))
    allowed = sorted(str(value) for value in CHOICES[key])
    with pytest.raises(ConfigError) as error:
        from_hydra(cfg)
    assert f"{key}='clipp' isn't available." in str(error.value)
    assert f"Allowed: {', '.join(allowed)}." in str(error.value)
    assert ("Did you mean 'clip'?" in str(error.value)) == (key == "optim.loss")


@pytest.mark.parametrize("key", UNSUPPORTED)
def test_retired_key_raises_when_set(composed, key):
    defaults = {
        name: value
        for name, value in default_leaves().items()
        if (name == key or name.startswith(f"{key}.")) and value != {}
    }
    assert defaults
    for name, default in defaults.items():
        cfg = OmegaConf.create(with_value(composed, name, another(default)))
        with pytest.raises(ConfigError, match="has no effect in bm") as error:
            from_hydra(cfg)
        assert f"{name}=" in str(error.value)
        assert UNSUPPORTED[key] in str(error.value)


def another(value: Any) -> Any:
    """Some other value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return ["other"]
    return "other" if isinstance(value, str) else 2 * (value or 0) + 1


def test_missing_and_dangling_values_are_told():
    with pytest.raises(ConfigError, match="can't be read.*nope"):
        from_hydra(OmegaConf.create({"optim": {"lr": "${nope}"}}))
    with pytest.raises(ConfigError, match="can't be read"):
        from_hydra(OmegaConf.create({"seed": "???"}))


def test_group_with_a_name_too_long_for_a_file_is_told():
    with pytest.raises(ConfigError, match="model"):
        main.get_xp(["model=" + 300 * "a"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.batch_siz=3"], r"Unknown key optim\.batch_siz\. Did you mean 'optim\.batch_size'"),
        (["seed=1", "lr=3"], r"Unknown key lr\. Did you mean 'optim\.lr'\?"),
        (["nosuch.key=1"], r"Unknown key nosuch\.key\. Keys begin with: audit, cache, .*, wandb\."),
        (
            ["preset=compct"],
            r"preset=compct isn't there\. Did you mean 'compact'\? Allowed: compact,",
        ),
        (["dset=3"], r"dset is a group of keys: set one of those, such as dset\."),
        (["optim.lr"], r"'optim\.lr' isn't of the form KEY=VALUE"),
        (["=3"], r"'=3' isn't of the form KEY=VALUE"),
        (["dset.selections=[a"], r"The value of 'dset\.selections=\[a' can't be read: lists are"),
        (["seed=1,2"], r"'seed=1,2' has several values: a list is 'KEY=\[A,B\]'"),
        (["+optim.lr=3"], r"can't be composed from .*already at 'optim\.lr'.*remove \+ prefix"),
        (["optim.lr=${nosuch}"], r"can't be composed from .*Interpolation key 'nosuch' not found"),
    ],
)
def test_argument_that_has_no_place_is_named_with_the_remedy_on_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        main.get_xp(arguments)
    assert "\n" not in str(error.value)


def test_wrong_argument_ends_dora_with_the_message_alone(tmp_path, python_env):
    command = [sys.executable, "-m", "dora", "-P", "bm", "run", "nosuch.key=1"]
    ended = subprocess.run(command, cwd=tmp_path, env=python_env, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Unknown key nosuch.key.")
    assert len(ended.stderr.splitlines()) == 1


def test_loss_of_the_task_is_that_of_training():
    assert compose("model=convrnn").task.loss == compose("model=convrnn").optim.loss == "l1"
    with pytest.raises(ConfigError, match="task.loss='l1', but optim.loss='mse' is what trains"):
        compose("model=convrnn", "optim.loss=mse")


def test_configuration_survives_a_checkpoint(composed):
    config = from_dict(composed)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config
    assert dataclasses.is_dataclass(config.dset.test)


def test_provenance_names_command_line_and_files():
    overrides = ["optim.batch_size=64", "dset.selections=[fake]", "seed=2036"]
    config = compose("feature_model=deep_mel", *overrides)
    choices = {
        "model_defaults": "defaults",
        "features_defaults": "features_defaults",
        "model": "clip_conv",
        "feature_model": "deep_mel",
        "selections": "selections_definitions",
        "study_paths": "study_paths",
        "preset": "none",
        "hydra/launcher": None,
    }
    entries = provenance(config, overrides, choices)
    sources = {key: (value, source) for key, value, source in entries}
    assert sources["optim.batch_size"] == (64, "command line")
    assert sources["dset.selections"] == (["fake"], "command line")
    assert sources["seed"] == (2036, "command line")  # said, though it is the default
    assert sources["optim.loss"] == ("clip", "model=clip_conv")
    assert sources["task.offset_meg_ms"] == (150.0, "model=clip_conv")
    assert sources["feature_model_params.glu"] == (2, "feature_model=deep_mel")
    assert "norm.clip" not in sources  # model=clip_conv says what holds anyway
    assert not any(key.startswith(("selections.", "study_paths.", "convrnn.")) for key in sources)
    assert [key for key, _, _ in entries] == [
        key for key in flatten(to_dict(config)) if key in sources
    ]


def test_provenance_lists_whatever_a_preset_changes():
    config = compose("preset=demo")
    choices = {"model": "clip_conv", "preset": "demo"}
    sources = {key: source for key, _, source in provenance(config, ["preset=demo"], choices)}
    defaults, leaves = default_leaves(), leaves_of("preset/demo.yaml")
    changed = [key for key, value in leaves.items() if defaults.get(key, "") != value]
    assert any(key.count(".") > 2 for key in changed)  # nested ones too
    assert {sources[key] for key in changed} == {"preset=demo"}
    assert {sources[key] for key in set(sources) - set(leaves)} == {"model=clip_conv"}
