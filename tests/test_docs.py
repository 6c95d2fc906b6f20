"""Documentation: every line of the table of features runs, and so do the models in docs/extending.md; links lead somewhere.

The site that mkdocs.yml describes: pytest -m site builds it, pytest -m browser looks at its pages in a browser.
"""

import functools
import html
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path

import commands
import numpy as np
import pytest
import zarr
from conftest import compose, small_network, write_network

from rlsnet.runs.folder import Run
from rlsnet.workflows import training

DOCS = Path(__file__).parents[1] / "docs"
ROWS = re.findall(r"^\| [^|]+ \| [^|]+ \| (`.*`) \|$", (DOCS / "comparison.md").read_text(), re.MULTILINE)
LINES = [line for row in ROWS for line in re.findall(r"`([^`]*=[^`]*)`", row)]
SMALL = shlex.split(
    "network.n_neurons=60 static.out_degree=12 plastic.n_inputs=16 trial.stim_on=10 trial.stim_off=40 trial.duration=200 train.iterations=1"
)

EXTENDING = (DOCS / "extending.md").read_text()
MINE, STEP, SOFT = re.findall(r"```(?:python|yaml)\n(.*?)```", EXTENDING, re.DOTALL)

CONNECTOMES = (DOCS / "connectomes.md").read_text()


def test_the_table_is_found():
    assert len(LINES) > 30 and "neuron=lif" in LINES


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the lines name, in the working directory."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    write_network(tmp_path / "network.zarr", small_network(0))
    np.savetxt("edges.csv", random.integers(0, 60, (300, 3)), "%d", ",", header="pre,post,weight", comments="")
    np.save("rates.npy", random.uniform(0, 20, (1, 20, 5)))
    np.save("stimulus.npy", random.normal(0, 1, (1, 3, 60)))
    for name, array, values in (
        ("mine", "rate", random.uniform(1, 20, (2, 20, 60))),
        ("gaps", "rate", np.where(np.arange(60) % 3, random.uniform(1, 20, (2, 20, 60)), np.nan)),
        ("currents", "current", random.normal(0, 0.5, (1, 20, 60))),
    ):
        root = zarr.create_group(f"{name}.zarr", attributes={"format": "rlsnet-recording", "bin_ms": 10.0})
        root[array] = values.astype("float32")
    Path("mine.py").write_text(MINE)
    for path, text in (("conf/target/step.yaml", STEP), ("conf/neuron/mine.yaml", SOFT)):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text)


@pytest.mark.parametrize("line", LINES)
def test_each_line_of_the_table_runs(tmp_path, files, line):
    words = shlex.split(line)
    small = [s for s in SMALL if not (s.startswith("static.out_degree") and any(w.startswith("static=") for w in words))]
    if "--config-dir" in words:
        done = commands.run("train", "config=tiny", *small, *words, "hydra.run.dir=run", "progress=off", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    else:
        config = compose("config=tiny", *small, *words, "progress=off")
        assert training.run_training(config, Run(tmp_path / "run"), resumed=False) == 0
    assert Run(tmp_path / "run").iterations() == [1]


SMALLER = (
    ("example_sessions.py sessions", "example_sessions.py sessions --units 40 50 40"),
    ("iterations=30", "iterations=2"),
    ("iterations=40", "iterations=3"),
    ("iterations=20", "iterations=1"),
    ("000040.zarr", "000003.zarr"),
    ("test.trials=10", "test.trials=2"),
)


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path):
    """Every block of docs/tutorial.md, in order, with fewer units and iterations."""

    def run(command: list[str]) -> None:
        if command[0] == "rlsnet":
            words = [path for word in command[1:] for path in (sorted(map(str, tmp_path.glob(word))) if "*" in word else [word])]
            done = commands.run(*words, cwd=tmp_path)
        else:
            environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    blocks = re.findall(r"```(bash|python)\n(.*?)```", (DOCS / "tutorial.md").read_text(), re.DOTALL)
    assert len(blocks) >= 9
    (tmp_path / "scripts").symlink_to(DOCS.parent / "scripts")
    for language, text in blocks:
        for before, after in SMALLER:
            text = text.replace(before, after)
        for command in [["python", "-c", text]] if language == "python" else map(shlex.split, text.splitlines()):
            run([sys.executable, *command[1:]] if command[0] == "python" else command)
    assert (tmp_path / "runs/tutorial/report.html").exists() and (tmp_path / "runs/tutorial/perturbed/silence.zarr").exists()
    assert len(list((tmp_path / "penalty").glob("*/checkpoints/000001.zarr"))) == 3


def test_the_first_connectome_of_its_page(tmp_path, monkeypatch):
    """The first block of commands, and the program that arranges a recording of a part of the neurons."""
    monkeypatch.chdir(tmp_path)
    (shell, *_), program = (re.findall(rf"```{language}\n(.*?)```", CONNECTOMES, re.DOTALL) for language in ("bash", "python"))
    for line in shell.splitlines():
        if line.startswith("rlsnet "):
            commands.rlsnet(*shlex.split(line)[1:], cwd=tmp_path)
        else:
            subprocess.run(["bash", "-c", line], check=True, cwd=tmp_path)
    names = {}
    exec(program[0], names)
    assert names["config"].network.load == "net.zarr" and np.isnan(names["recording"].read()[:, :, 1]).all()


ROOT = DOCS.parent
PAGES = sorted(path for folder in ("", "docs", "benchmarks/**") for path in ROOT.glob(f"{folder}/*.md".lstrip("/")))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^(```.*?^```|    .*?$)", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = (re.sub(r"\]\([^)]*\)", "", heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page):
    """In the repository, as on GitHub; on the site they are checked when it is built, which fails at a link that leads nowhere."""
    for path, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists() and target.is_relative_to(ROOT), path
        assert not anchor or target.suffix != ".md" or anchor in anchors(target), f"{path}#{anchor}"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, in a folder below the root of a server. A link or an anchor that leads nowhere, or a page missing in nav, fails."""
    folder = tmp_path_factory.mktemp("served") / "rlsnet"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


class Loaded(HTMLParser):
    """What a page loads, and the classes of its elements."""

    def __init__(self, page: Path):
        super().__init__()
        self.addresses, self.classes = [], set()
        self.feed(page.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.classes |= set((found.get("class") or "").split())
        name = {"link": "href", "object": "data"}.get(tag, "src")
        if tag != "a" and found.get(name) and found.get("rel") != "canonical":
            self.addresses.append(found[name])


@pytest.mark.site
def test_the_site_loads_nothing_from_another_host(site):
    pages = sorted(site.rglob("*.html"))
    assert {"index.html", "reference.html", "scores.html", "configuration.html"} <= {page.name for page in pages}
    for page in pages:
        loaded = Loaded(page)
        assert loaded.addresses and not [address for address in loaded.addresses if re.match(r"(https?:)?//", address)], page
        assert "mermaid" not in loaded.classes and "arithmatex" not in loaded.classes, page  # the theme would load a script for the first
        for address in loaded.addresses:
            assert page.name == "404.html" or (page.parent / html.unescape(address).split("?")[0]).exists(), (page, address)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text()), sheet


@pytest.mark.site
def test_formulas_examples_and_search_are_in_the_site(site):
    model, reference = (site / "model.html").read_text(), (site / "reference.html").read_text()
    assert (
        model.count('<div class="formula"><svg') >= 7
        and model.count('<span class="formula"><svg') >= 10
        and "$$" not in model
        and 'aria-label="' in model
    )
    assert 'id="rlsnet.api.train"' in reference and 'id="rlsnet.results.Run"' in reference
    assert "&gt;&gt;&gt;" in reference and '<span class="gp">' in reference  # examples are coloured, so they were read as code
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert {"scores.html", "reference.html#rlsnet.api.train"} <= {entry["location"] for entry in index["docs"]}


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
LOOK = """<!DOCTYPE html><title>look</title><body><script>
const pages = {pages}, widths = [390, 1440], found = [];
(async () => {{
  for (const page of pages) for (const width of widths) {{
    const frame = document.createElement("iframe");
    frame.width = width; frame.height = 800; frame.style.border = 0; frame.src = page;
    const loaded = new Promise((resolve) => frame.onload = resolve);
    document.body.append(frame); await loaded; await new Promise((resolve) => setTimeout(resolve, 50));
    const inside = frame.contentWindow, root = inside.document.documentElement;
    const hosts = inside.performance.getEntriesByType("resource").map((entry) => new URL(entry.name, location).host);
    const drawn = [...inside.document.images].every((image) => image.loading == "lazy" || image.naturalWidth > 0);
    found.push([page, width, root.scrollWidth, inside.innerWidth, [...new Set(hosts)], drawn]);
    frame.remove();
  }}
  document.body.dataset.found = JSON.stringify(found);
}})();
</script>"""


@pytest.mark.browser
def test_pages_of_the_site_fit_a_phone_and_a_desk_and_ask_no_other_host(site, tmp_path):
    """pytest -m browser, with the extra docs: served below a path, as pages of a project are."""
    assert CHROMIUM, "chromium is not on PATH"
    pages = [f"rlsnet/{page.relative_to(site)}" for page in sorted(site.rglob("*.html")) if page.name != "404.html"]
    (site.parent / "look.html").write_text(LOOK.format(pages=json.dumps(pages)))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        command = [
            CHROMIUM,
            *FLAGS.split(),
            f"--user-data-dir={tmp_path}",
            "--virtual-time-budget=120000",
            "--dump-dom",
            f"{address}/look.html",
        ]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300)
        server.shutdown()
    match = re.search(r'data-found="([^"]*)"', result.stdout)
    assert match, result.stderr[-2000:]
    found = json.loads(html.unescape(match[1]))
    assert len(found) == 2 * len(pages) > 40
    for page, width, scroll, inner, hosts, drawn in found:
        assert scroll <= inner == width and drawn and hosts == [address.removeprefix("http://")], (page, width, scroll, hosts, drawn)


@pytest.mark.browser
def test_search_works_in_a_page_that_is_opened_from_a_folder(site, tmp_path):
    assert CHROMIUM, "chromium is not on PATH"
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom"]
    result = subprocess.run([*command, f"{site.as_uri()}/index.html?q=penalty"], capture_output=True, text=True, timeout=120)
    assert re.search(r"\d+ matching documents", result.stdout) and 'href="file:' in result.stdout, result.stderr[-2000:]
