"""The page that lists the features: all of them, with their arguments, sizes and kinds."""

import inspect
import re

import pytest

from bm.features import registry
from bm.features.speech import PretrainedSpeech

SHARED = {"models_folder", "sample_rate"}
"""Arguments that come from elsewhere in the configuration."""


@pytest.fixture(scope="module")
def rows(root) -> dict[str, list[str]]:
    """What the page says of each feature: meaning, size, arguments, needs."""
    page = (root / "docs" / "features.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", page, flags=re.MULTILINE)
    assert len(lines) == len({name for name, _ in lines})
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in lines}


def test_every_feature_is_on_the_page_and_no_other(rows):
    assert set(rows) == set(registry)


@pytest.mark.parametrize("name", registry)
def test_arguments_size_and_kind_are_those_of_the_class(rows, name):
    meaning, size, arguments, _ = rows[name]
    kind = registry[name]
    expected = [key for key in inspect.signature(kind).parameters if key not in SHARED]
    assert re.findall(r"`(\w+)`", arguments) == expected
    if not issubclass(kind, PretrainedSpeech):  # those follow from a model
        dimension = kind().dimension
        assert size == ("`n_mels`" if name == "MelSpectrum" else str(dimension))
        assert meaning.startswith("class: ") == (kind().cardinality is not None)
