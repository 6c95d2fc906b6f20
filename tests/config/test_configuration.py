"""Files that scripts/configuration.py writes: docs/configuration.md and the YAML files of the settings."""

import importlib.util
import subprocess
import sys
from pathlib import Path

from rlsnet.config.compose import configs_dir
from rlsnet.config.settings import default_variants

ROOT = Path(__file__).parents[2]


def script():
    spec = importlib.util.spec_from_file_location("configuration", ROOT / "scripts" / "configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_file_is_that_of_the_schema():
    files = script().files()
    for path, text in files.items():
        assert path.read_text() == text, f"{path} differs; run python scripts/configuration.py"
    by_hand = {configs_dir() / "hydra_settings.yaml"}
    by_hand |= {path for folder in ("config", "import", "hydra") for path in (configs_dir() / folder).rglob("*.yaml")}
    assert set(configs_dir().rglob("*.yaml")) == {path for path in files if path.suffix == ".yaml"} | by_hand


def test_the_page_has_every_key():
    page = (ROOT / "docs" / "configuration.md").read_text()
    code = "from rlsnet.config.settings import keys; print(*keys())"  # in a process of its own, without plugins of other tests
    known = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    chosen = {f"{group}.name" for group in default_variants()}  # as neuron=lif, say
    assert [key for key in known if f"| `{key}` |" not in page and f"## {key}\n" not in page and key not in chosen] == []
