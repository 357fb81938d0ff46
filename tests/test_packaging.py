"""The package as a whole: dependencies, what gets installed, make targets, layers, importing it."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import bm
from bm.core.hashing import digest
from bm.recordings import Preprocessing

# Needed, though no line of bm imports them.
NOT_IMPORTED = {
    "pyarrow": "pandas reads and writes the event tables with it",
    "transformers": "the wav2vec 2.0 feature of the published configuration",
}
OPTIONAL = {
    "espeakng-loader", "hiplot", "librosa", "scikit-learn", "spacy", "tensorboard", "wandb",
    "wordfreq",
}  # fmt: skip


@pytest.fixture(scope="module")
def requirements(root: Path) -> dict[str, list[Requirement]]:
    """Ranges of setup.py: those needed always under "", those of each extra under its name."""
    assigned = {}
    for node in ast.parse((root / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if node.targets[0].id in ("REQUIRED", "EXTRAS"):
                assigned[node.targets[0].id] = ast.literal_eval(node.value)
    groups = {"": assigned["REQUIRED"], **assigned["EXTRAS"]}
    return {name: [Requirement(text) for text in texts] for name, texts in groups.items()}


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    lines = (root / "requirements.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): number for name, number in pairs}


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Third-party distributions that Python files below `folder` import, with the file."""
    distributions = packages_distributions()
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                if top not in sys.stdlib_module_names and top in distributions:
                    yield canonicalize_name(distributions[top][0]), str(file)


def names(group: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in group}


# Dependencies


def test_everything_imported_is_declared(root, requirements):
    needed = names(requirements[""])
    allowed = needed | OPTIONAL | {"bm"}
    for folder in ("bm", "scripts"):
        undeclared = [(name, file) for name, file in imported(root / folder) if name not in allowed]
        assert not undeclared
    everything = set().union(*map(names, requirements.values())) | {
        "bm",
        "packaging",
        "pyyaml",
    }
    assert not [pair for pair in imported(root / "tests") if pair[0] not in everything]


def test_everything_declared_is_imported(root, requirements):
    used = {name for folder in ("bm", "scripts") for name, _ in imported(root / folder)}
    assert names(requirements[""]) - used <= set(NOT_IMPORTED)


def test_ranges_reach_from_the_tested_version_to_the_next_major_one(requirements, pins):
    for group, ranges in requirements.items():
        for requirement in ranges:
            bounds = {part.operator: Version(part.version) for part in requirement.specifier}
            assert set(bounds) == {">=", "<"}, requirement
            if group not in ("text", "encoders", "fuzz"):  # installed by those who want it
                pin = pins[canonicalize_name(requirement.name)]
                assert pin in requirement.specifier, requirement
                lowest = bounds[">="].release
                assert Version(pin).release[: len(lowest)] == lowest, requirement


def test_tests_run_with_the_pinned_versions(requirements, pins):
    ranges = [
        *requirements[""],
        *requirements["dev"],
        *requirements["audio"],
        *requirements["demo"],
        *requirements["notebooks"],
        *requirements["tracking"],
    ]
    for name in names(ranges):
        assert Version(version(name)).public == pins[name], name


# What is installed


def test_version_is_that_of_the_package_and_read_without_importing_it(root, tmp_path):
    (tmp_path / "bm").mkdir()
    text = f'import absent_dependency\n__version__ = "{bm.__version__}"\n'
    (tmp_path / "bm" / "__init__.py").write_text(text)
    shutil.copy(root / "setup.py", tmp_path)
    command = [sys.executable, "setup.py", "--quiet", "--version"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == bm.__version__


def test_wheel_holds_every_file_of_the_package(root, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "LICENSE"):
        shutil.copy(root / name, source)
    shutil.copytree(root / "bm", source / "bm", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=source, capture_output=True, check=True)

    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    assert files(tmp_path / "lib" / "bm") == files(source / "bm")


def test_licence_and_changelog_are_there(root):
    assert "MIT License" in (root / "LICENSE").read_text()
    assert "## [Unreleased]" in (root / "CHANGELOG.md").read_text()


# Importing


def test_importing_bm_loads_nothing_heavy(python_env):
    code = "import sys, bm; print(sorted({'torch', 'mne', 'numpy', 'pandas'} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=python_env, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_importing_every_module_changes_nothing_and_warns_of_nothing(tmp_path, root, python_env):
    code = """
import importlib, logging, multiprocessing, os, pkgutil, sys, warnings
import mne, torch, dora, hydra, transformers, matplotlib, sklearn
import bm

def state():
    return [
        dict(os.environ), os.getcwd(), sorted(os.listdir(".")), torch.get_num_threads(),
        torch.get_default_dtype(), torch.initial_seed(), logging.root.level,
        list(logging.root.handlers), matplotlib.get_backend(auto_select=False),
        multiprocessing.get_start_method(allow_none=True),
    ]

before = state()
warnings.simplefilter("error")
for module in pkgutil.walk_packages(bm.__path__, "bm."):
    importlib.import_module(module.name)
assert state() == before, (state(), before)
print(len([name for name in sys.modules if name.startswith("bm.")]))
"""
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, env=python_env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    n_modules = len([path for path in (root / "bm").rglob("*.py")]) - 1  # bm/__init__.py itself
    assert int(result.stdout) == n_modules


def test_models_losses_and_metrics_run_with_torch_alone(python_env):
    """So that they can be used, and timed, where nothing else is installed."""
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import bm.losses, bm.metrics, bm.models
"""
    absent = ["mne", "pandas", "pyarrow", "scipy", "hydra", "omegaconf", "dora", "julius"]
    absent += ["soundfile", "filelock", "xxhash", "tqdm", "transformers", "jaxtyping", "matplotlib"]
    command = [sys.executable, "-c", code, *absent]
    result = subprocess.run(command, env=python_env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_types_are_checked_while_tests_run():
    with pytest.raises(TypeCheckError):
        digest({}, length="16")  # type: ignore[arg-type]
    assert Preprocessing(120, 0).sample_rate == 120  # an int does for a float


# Make


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """What `make install` reads, in a folder of its own."""
    folder = tmp_path / "tree"
    (folder / "conf").mkdir(parents=True)
    for name in ("Makefile", "setup.py", "requirements.txt", "conf/config.yaml"):
        shutil.copy(root / name, folder / name)
    return folder


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--no-print-directory", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return f"PYTHON={path}"


def test_install_refuses_an_old_python(tree):
    old = 'if [ "$1" = --version ]; then echo Python 3.10.4; else exit 1; fi'
    result = make(tree, "install", script(tree / "python", old))
    assert result.returncode
    assert "Python 3.10.4, but bm needs Python 3.11 or later" in result.stderr
    assert not (tree / ".venv").exists()


def test_install_names_a_missing_venv_module(tree):
    (tree / "absent").mkdir()
    (tree / "absent" / "ensurepip.py").write_text("raise ImportError")
    without = f'PYTHONPATH={tree / "absent"} exec "{sys.executable}" "$@"'
    result = make(tree, "install", script(tree / "python", without))
    assert result.returncode
    assert "without its venv or ensurepip module" in result.stderr
    assert "apt-get install python3-venv" in result.stderr
    assert not (tree / ".venv").exists()


def test_install_names_a_missing_python(tree):
    result = make(tree, "install", "PYTHON=no-such-python")
    assert result.returncode
    assert "there is no no-such-python here" in result.stderr


def test_install_names_a_missing_configuration(tree):
    shutil.rmtree(tree / "conf")
    result = make(tree, "install", f"PYTHON={sys.executable}")
    assert result.returncode
    assert "conf/config.yaml is missing" in result.stderr


def test_failed_install_is_not_taken_for_a_finished_one(tree):
    (tree / "requirements.txt").write_text("absent @ file:///absent/absent-1.0.zip\n")
    for _ in range(2):
        result = make(tree, "install", f"PYTHON={sys.executable}")
        assert result.returncode
        assert "absent-1.0.zip" in result.stderr
        assert not (tree / ".venv" / ".installed").exists()


def test_install_does_nothing_until_a_dependency_changes(tree):
    (tree / ".venv").mkdir()
    (tree / ".venv" / ".installed").touch()
    assert "pip install" not in make(tree, "-n", "install").stdout
    for name in ("requirements.txt", "setup.py"):
        later = (tree / ".venv" / ".installed").stat().st_mtime + 10
        os.utime(tree / name, (later, later))
        assert "pip install" in make(tree, "-n", "install").stdout
        os.utime(tree / name, (0, 0))


def test_help_lists_the_targets(tree):
    listed = re.findall(r"^  make ([a-z-]+) ", make(tree).stdout, flags=re.MULTILINE)
    assert {"install", "demo", "test", "test-pythons", "lint", "clean"} <= set(listed)


def test_pythons_that_are_not_here_are_skipped_and_named(tree, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for tool in ("make", "sh"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = make(tree, "test-pythons")
    assert result.returncode
    assert "no python3.12 here: skipped" in result.stdout
    assert "none of Python 3.11, 3.12 and 3.13 is here" in result.stderr
    script(tmp_path / "bin" / "python3.12", "exit 1")  # without venv, and the others missing
    assert "python3.12 comes without venv: skipped" in make(tree, "test-pythons").stdout


def test_commit_hooks_are_the_parts_of_make_lint(root):
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]
    assert local["repo"] == "local"
    hooks = {hook["entry"].split()[-1] for hook in local["hooks"]}
    (parts,) = re.findall(r"^lint: ([a-z -]+?) ##", (root / "Makefile").read_text(), re.MULTILINE)
    assert hooks == set(parts.split())
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)


def test_every_target_of_make_has_one_recipe(root):
    text = (root / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: ((?:.|\\\n)+?)\n\n", text, re.MULTILINE)
    targets = re.findall(r"^([a-z-]+):", text, re.MULTILINE)
    assert sorted(targets) == sorted(phony.replace("\\\n", " ").split())


def test_ci_runs_lint_and_tests_and_stops_at_the_first_failure(root, tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", tmp_path / ".ci" / "run")
    targets = "install:\n\techo I\nlint:\n\techo L\ntest:\n\techo T; exit 1\n"
    (tmp_path / "Makefile").write_text(targets)
    result = subprocess.run([tmp_path / ".ci" / "run"], cwd="/", capture_output=True, text=True)
    assert result.returncode
    assert re.findall(r"^[ILT]$", result.stdout, re.MULTILINE) == ["I", "L", "T"]
    (tmp_path / "Makefile").write_text(targets.replace("echo L", "exit 1"))
    result = subprocess.run([tmp_path / ".ci" / "run"], cwd="/", capture_output=True, text=True)
    assert result.returncode
    assert "T" not in result.stdout.split()


# Layers


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("bm/events/extra.py", "import bm.recordings", "bm.events is not allowed to import"),
        ("bm/features/extra.py", "import bm.studies", "bm.features is not allowed to import"),
        ("bm/models/extra.py", "import bm.events", "bm.models is not allowed to import"),
        ("bm/losses.py", "import bm.metrics", "bm.losses is not allowed to import"),
        ("bm/segments/extra.py", "import omegaconf", "bm.segments is not allowed to import"),
        ("bm/solver.py", "import bm.config", "bm.solver is not allowed to import"),
        ("bm/metrics.py", "import pandas", "bm.metrics is not allowed to import"),
        ("bm/unheard_of.py", "", "The following modules are not listed as layers"),
    ],
)
def test_import_against_the_layers_is_caught(root, tmp_path, python_env, file, line, message):
    shutil.copy(root / "pyproject.toml", tmp_path)
    shutil.copytree(root / "bm", tmp_path / "bm", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / file).write_text(f"{line}\n")
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    env = {**python_env, "PYTHONPATH": str(tmp_path), "NO_COLOR": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert result.returncode
    assert message in re.sub(r"\s+", " ", result.stdout)


def test_style_is_the_agreed_one(root):
    tools = tomllib.loads((root / "pyproject.toml").read_text())["tool"]
    assert tools["ruff"]["line-length"] == 100
    agreed = "E F W I UP B A D C901 ERA T20 S307 PT NPY RUF100".split()
    assert set(tools["ruff"]["lint"]["select"]) >= set(agreed)
    assert tools["mypy"]["disallow_untyped_defs"]
    assert "error" in tools["pytest"]["ini_options"]["filterwarnings"]
