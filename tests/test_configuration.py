"""docs/configuration.md."""

import importlib.util
from pathlib import Path

from rlsnet.config import Config
from rlsnet.convert import keys

ROOT = Path(__file__).parents[1]


def test_the_configuration_page_is_that_of_the_schema():
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "scripts" / "configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == module.page(), "run python scripts/configuration.py"
    sections = {"network", "neuron", "static", "plastic", "feedforward", "stimulus", "target"}  # groups choose by name
    missing = [key for key in keys(Config) if f"| `{key}` |" not in page and f"## {key}\n" not in page]
    assert [key for key in missing if key.removesuffix(".name") not in sections] == []
