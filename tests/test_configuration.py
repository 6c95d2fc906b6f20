"""docs/configuration.md."""

import importlib.util
from pathlib import Path

from rlsnet.config import Config
from rlsnet.convert import keys
from rlsnet.describe import configs_dir

ROOT = Path(__file__).parents[1]


def test_the_configuration_page_is_that_of_the_schema():
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "scripts" / "configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == module.page(), "run python scripts/configuration.py"
    chosen = {f"{group.name}.name" for group in configs_dir().iterdir()}  # as neuron=lif, say
    assert [key for key in keys(Config) if f"| `{key}` |" not in page and f"## {key}\n" not in page and key not in chosen] == []
