"""rlsnet live: the state of a run by its files, the server that shows it, the page to keep, and the view in a terminal."""

import contextlib
import html
import http.client
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import watched_run as watched
from browser import CHROMIUM, Browser
from rich.console import Console
from test_report import Page

from rlsnet.analysis.live import page, terminal
from rlsnet.analysis.live.server import MOST_CONNECTIONS, MOST_STREAMS, Server
from rlsnet.analysis.live.state import Reader
from rlsnet.cli.main import dispatch
from rlsnet.errors import UserError
from rlsnet.io import locks
from rlsnet.runs.folder import Run
from rlsnet.runs.metrics import append_line

PLAIN = Path(__file__).parents[1] / "fixtures" / "runs" / "plain"
SMALL = 200_000  # bytes of an update


@pytest.fixture
def run(tmp_path):
    """A copy of a run of rlsnet train."""
    return Run(shutil.copytree(PLAIN, tmp_path / "run"))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """(run of an experiment with 60 trials, time, data, model); no test changes it."""
    run = Run(shutil.copytree(PLAIN, tmp_path_factory.mktemp("experiment") / "<b>run"))
    return run, *watched.write_watched(run.path)


def reader_of(run: Run) -> Reader:
    reader = Reader(run)
    reader.refresh()
    return reader


def refresh_at_once(reader: Reader) -> None:
    """Reads what has changed, however long the reading before took."""
    for source in reader.sources:
        source._earliest = 0.0
    reader.refresh()


def state_of(run: Run) -> dict:
    """The state as a page gets it."""
    return json.loads(json.dumps(reader_of(run).state(), allow_nan=False))


# ---------------------------------------------------------------- state


def test_a_run_of_train_is_shown_by_its_metrics_and_resources(run, monkeypatch):
    lines = [json.loads(each) for each in (run.path / "metrics.jsonl").read_text().splitlines()]
    memory = json.loads((run.path / "resources.jsonl").read_text().splitlines()[-1])["memory_mb"]
    state, correlations = state_of(run), [each["correlation"] for each in lines]
    tiles = {label: value for label, value, _ in state["tiles"]}
    assert tiles["state"] == "not running" and tiles["iterations"] == str(lines[-1]["iteration"]) and tiles["memory"] == f"{memory:.3g} MB"
    assert state["iterations"]["iteration"] == [each["iteration"] for each in lines]
    found, own = (np.array([each or np.nan for each in values]) for values in (state["iterations"]["correlation"], correlations))
    np.testing.assert_allclose(found, own, rtol=1e-3)
    assert state["recording"] is state["trials"] is state["rates"] is state["prediction"] is None and state["notes"] == []
    with run.claimed():
        assert state_of(run)["running"]
    assert not state_of(run)["running"]
    monkeypatch.setattr(locks, "is_held", lambda path: open("/nowhere/lock"))  # somebody else's run
    assert state_of(run)["running"] is None and ["state", "unknown", ""] in state_of(run)["tiles"]


def test_long_curves_are_means_of_neighbours(run):
    for name in ("metrics.jsonl", "metrics.crc32"):
        (run.path / name).unlink(missing_ok=True)
    lines = [watched.iteration_line(iteration) for iteration in range(1, 3001)]
    (run.path / "metrics.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    curve = state_of(run)["iterations"]
    assert curve["iteration"] == list(range(10, 3001, 10)) and len(curve["validations"]) == 150
    np.testing.assert_allclose(curve["correlation"][7], np.mean([each["correlation"] for each in lines[70:80]]), rtol=1e-3)


def test_the_score_over_trials_is_the_ratio_of_sums_of_the_last_30_trials(run):
    random = np.random.default_rng(0)
    score, ceiling, variance = random.normal(3, 2, 75), random.normal(8, 1, 75), random.gamma(9, 1, 75)
    score[[3, 50]] = np.nan  # unknown: these trials count in neither sum
    for trial in range(75):
        line = watched.trial_line(
            trial + 1, None if np.isnan(score[trial]) else score[trial], ceiling=ceiling[trial], variance=variance[trial]
        )
        append_line(run.path / "trials.jsonl", line)
    found = state_of(run)["trials"]
    assert found["trial"] == list(range(1, 76)) and found["n"] == 75
    for trial in (0, 3, 29, 30, 74):
        part = np.arange(75)[max(0, trial - 29) : trial + 1]
        known = part[np.isfinite(score[part])]
        assert found["score"][trial] == pytest.approx(score[known].sum() / variance[known].sum(), rel=1e-3)
        assert found["ceiling"][trial] == pytest.approx(ceiling[part].sum() / variance[part].sum(), rel=1e-3)
    assert found["all"] == pytest.approx([np.nansum(score) / variance[np.isfinite(score)].sum(), ceiling.sum() / variance.sum()], rel=1e-3)
    held_out = np.arange(4, 75, 5)
    assert found["n_held_out"] == 15 and found["held_out"][1] == pytest.approx(ceiling[held_out].sum() / variance[held_out].sum(), rel=1e-3)
    rows = {each["name"]: each["trials"] for each in found["conditions"]}
    assert rows["no condition"] == 75 // 17 and sum(rows.values()) == 75


def test_rates_of_units_their_correlations_and_ceilings(experiment):
    run, time_s, data, model = experiment
    reader = reader_of(run)
    summary, unit = reader.state()["rates"], reader.unit(17)
    np.testing.assert_allclose(unit["data"], data[:, :, 17], rtol=1e-3)
    np.testing.assert_allclose(unit["model"], model[:, :, 17], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(unit["time"], time_s, rtol=1e-3, atol=1e-9)
    own = np.array([[np.corrcoef(data[c, :, u], model[c, :, u])[0, 1] for u in range(300)] for c in range(2)])
    np.testing.assert_allclose(unit["correlations"], own[:, 17], rtol=1e-3)
    scores = own.mean(axis=0)
    assert summary["chosen"]["best"] == np.argmax(scores) and summary["chosen"]["worst"] == np.argmin(scores)
    assert summary["correlation"] == pytest.approx(np.median(scores), rel=1e-3)
    reliability = watched.rates(300, watched.CONDITIONS, 200, 0.8)[3]
    np.testing.assert_allclose(unit["ceilings"], np.sqrt(2 * reliability / (1 + reliability))[:, 17], rtol=1e-3)
    of_region = np.arange(300) % 5 == 0
    row = next(each for each in summary["regions"] if each["name"] == "ALM")
    assert row["units"] == 60 and row["correlation"] == pytest.approx(np.median(scores[of_region]), rel=1e-3)
    assert row["data_hz"] == pytest.approx(data[:, :, of_region].mean(), rel=1e-3)
    assert {each["id"] for each in reader.units("thalamus")["units"]} <= {f"probe{'AB'[i % 2]}-{i}" for i in range(1, 300, 5)}
    assert reader.units("PROBEA-1")["n"] == sum(i % 2 == 0 and str(i).startswith("1") for i in range(300))


def test_a_heat_map_is_sorted_by_the_time_of_the_peak(experiment):
    run, _, data, model = experiment
    found = reader_of(run).heat_map(1)
    peaks = data[1].argmax(axis=0)[found["units"]]
    assert len(found["units"]) == 200 and found["columns"] == 200 and np.all(np.diff(peaks) >= 0)
    levels = np.frombuffer(page.base64.b64decode(found["model"]), np.uint8).reshape(200, 200)
    order = np.argsort(data[1].argmax(axis=0), kind="stable")
    low, high = data.min(axis=(0, 1)), data.max(axis=(0, 1))
    edges = np.linspace(0, 300, 201).astype(int)
    group = order[edges[70] : edges[71]]
    expected = np.clip(((model[1][:, group] - low[group]) / (high - low)[group]).mean(axis=1), 0, 1)
    np.testing.assert_allclose(levels[70] / 254, expected, atol=0.003)


def test_predictions_begin_with_the_one_about_which_the_models_differ_most(experiment):
    run, *_ = experiment
    effect = watched.write_prediction(run.path, 60)
    shown = state_of(run)["prediction"]
    assert [each["name"] for each in shown["perturbations"]][:2] == ["silence thalamus", "stimulate midbrain"]
    alm, thalamus = (next(each for each in shown["perturbations"] if each["name"] == f"silence {name}") for name in ("ALM", "thalamus"))
    np.testing.assert_allclose(alm["conditions"][1]["models"], effect[:, 0, 1, :150].mean(axis=1), rtol=1e-3)  # the observed units alone
    np.testing.assert_allclose(thalamus["conditions"][0]["models"], effect[:, 1, 0].mean(axis=1), rtol=1e-3)
    assert thalamus["conditions"][0]["observed"] is None and alm["conditions"][1]["observed"] == pytest.approx(-1.8, abs=0.3)


def test_health_of_the_recording_and_what_to_act_on(run):
    for trial in range(1, 21):
        append_line(run.path / "trials.jsonl", watched.trial_line(trial, condition=None if trial > 5 else "left"))
    watched.write_ingest(run.path, 20, spikes_in_windows=40, problem="no answer from tcp://127.0.0.1:5557", lost=3)
    state = state_of(run)
    rows = {name: (value, good) for name, value, good in state["recording"]}
    assert rows["spikes in windows of trials"] == ("40 (0.0 % of all)", False) and rows["lost messages"] == ("3", False)
    assert rows["connection"] == ("no answer from tcp://127.0.0.1:5557", False) and rows["units"] == ("300", True)
    notes = "\n".join(state["notes"])
    assert "Only 40 of 420,000 spikes lie in the windows of the 20 trials" in notes and "15 of 20 trials fit no condition" in notes
    assert "no answer from" in notes and "3 messages were lost" in notes
    watched.write_ingest(run.path, 20, time=time.time() - 60, last_message=None)
    with run.claimed():
        assert any("ingest.json was written 60 s ago" in each for each in state_of(run)["notes"])
    watched.write_ingest(run.path, 20, ended=True, training="stopped")
    rows = {name: (value, good) for name, value, good in state_of(run)["recording"]}
    assert rows["connection"] == ("ended", True) and rows["training"] == ("stopped", True)
    watched.write_ingest(run.path, 20, training="stopped: out of memory")
    assert ["training", "stopped: out of memory", False] in state_of(run)["recording"]
    (run.path / "ingest.json").write_text("{}")
    assert "holds no JSON object" in state_of(run)["notes"][0]
    (run.path / "ingest.json").write_text('{"spikes": "many", "lost": null, "source": 7, "last_message": NaN}')
    assert state_of(run)["recording"][0] == ["source", "7", True]


def test_missing_and_damaged_files_keep_what_was_shown(run):
    watched.write_watched(run.path, 20, n_units=12, n_bins=30)
    reader = reader_of(run)
    before = reader.state()
    with (run.path / "trials.jsonl").open("a") as file:
        file.write('{"trial": 21, "condi')  # the writer is not done with the line
    shutil.rmtree(run.path / "prediction.zarr")
    (run.path / "online.zarr" / "zarr.json").write_text("{damaged")
    (run.path / "ingest.json").write_text("[")
    refresh_at_once(reader)
    after = reader.state()
    assert after["trials"] == before["trials"] and after["rates"] == before["rates"] and after["prediction"] == before["prediction"]
    assert len(after["notes"]) == 2 and all("online.zarr" in each or "ingest.json" in each for each in after["notes"])
    watched.write_online(run.path, 22, n_units=12, n_bins=30)
    watched.write_ingest(run.path, 22)
    refresh_at_once(reader)
    assert reader.state()["rates"]["trial"] == 22 and reader.state()["notes"] == []


def test_a_store_that_is_replaced_all_the_time_is_read_as_one_of_its_versions(run):
    """Data and model of trial n have all the value n."""

    def replace(trial: int) -> None:
        per_unit = ["condition", "time", "unit"]
        arrays = {
            "condition": (np.array(["a"]), ["condition"]),
            "time": (np.arange(40.0), ["time"]),
            "n_trials": (np.array([1]), ["condition"]),
        }
        arrays |= {"unit/id": (np.array([f"u{i}" for i in range(30)]), ["unit"])}
        arrays |= {name: (np.full((1, 40, 30), trial, "f4"), per_unit) for name in ("data", "model")}
        watched.store(run.path / "online.zarr", "rlsnet-online", trial, arrays)

    def go_on() -> None:
        trial = 2
        while not stop.is_set():
            replace(trial)
            trial += 1

    replace(1)
    stop, reader, seen = threading.Event(), Reader(run), set()
    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        deadline = time.monotonic() + 20
        while len(seen) < 6 and time.monotonic() < deadline:
            refresh_at_once(reader)
            unit, trial = reader.unit(3), reader.state()["rates"]["trial"]
            assert set(unit["data"][0]) == set(unit["model"][0]) == {trial}
            seen.add(trial)
    finally:
        stop.set()
        writer.join()
    assert len(seen) == 6


def test_at_the_start_of_an_experiment_little_is_known(run, capsys):
    """The model is not simulated yet, one condition has no trial, reliability is missing, and so are keys of all files."""
    append_line(run.path / "trials.jsonl", {"trial": 1})
    with (run.path / "ingest.json").open("w") as file:
        json.dump({"source": "a"}, file)
    watched.write_online(run.path, 1, n_units=7, n_bins=20)
    unknown = {"data": np.where(np.arange(2)[:, None, None] == 0, watched.rates(7, watched.CONDITIONS, 20, 1)[1], np.nan)}
    unknown |= {"model": np.full((2, 20, 7), np.nan), "condition": np.array(watched.CONDITIONS), "unit/id": np.array(list("abcdefg"))}
    unknown |= {"time": np.arange(20) / 50, "n_trials": np.array([1, 0])}
    dims = {"data": ["condition", "time", "unit"], "model": ["condition", "time", "unit"], "condition": ["condition"], "unit/id": ["unit"]}
    arrays = {name: (values, dims.get(name, ["x"])) for name, values in unknown.items()}
    watched.store(run.path / "online.zarr", "rlsnet-online", 1, arrays)
    reader = reader_of(run)
    state = reader.state()
    assert (
        state["notes"] == []
        and state["rates"]["chosen"] == {}
        and state["rates"]["correlation"] is None
        and state["rates"]["regions"] == []
    )
    assert state["trials"]["score"] == state["trials"]["ceiling"] == [None]
    assert reader.heat_map(1)["units"] == [] and reader.heat_map(1)["model"] == "" and len(reader.heat_map(0)["units"]) == 7
    assert set(page.base64.b64decode(reader.heat_map(0)["model"])) == {255}
    assert reader.unit(3)["model"] == [[None] * 20] * 2 and reader.unit(3)["region"] is None
    assert "NaN" not in page.saved(reader)
    dispatch(["live", str(run.path), "terminal=true"])
    assert "Firing rates after trial 1; median correlation –" in " ".join(capsys.readouterr().out.split())
    watched.store(run.path / "online.zarr", "rlsnet-online", 0, {"condition": (np.array(["left"]), ["condition"])})  # no unit yet
    assert state_of(run)["rates"] is None and state_of(run)["notes"] == []
    watched.write_online(run.path, 2, n_units=0, n_bins=20)
    reader = reader_of(run)
    assert reader.state()["rates"]["n_units"] == reader.units("")["n"] == 0 and reader.heat_map(0)["units"] == []
    assert "NaN" not in page.saved(reader) and reader.state()["notes"] == []


def test_updates_of_a_large_network_are_small(run):
    names = [f"condition {i} with a name that is rather long" for i in range(6)]
    watched.write_watched(run.path, 400, n_units=8000, conditions=names, n_bins=150)
    reader = reader_of(run)
    assert len(json.dumps(reader.state())) < SMALL / 2
    assert len(json.dumps(reader.unit(7999))) < SMALL and len(json.dumps(reader.heat_map(5))) < SMALL
    assert len(json.dumps(reader.units("probe"))) < SMALL and reader.units("probe")["n"] == 8000
    assert len(page.saved(reader)) < 6e6


# ---------------------------------------------------------------- server


class Client:
    """Asks a server as a browser or an attacker would."""

    def __init__(self, server: Server):
        self.server = server
        self.host = f"127.0.0.1:{server.port}"
        self.cookie = {"Cookie": f"theme=dark; {server.cookie}={server.token}"}

    def ask(self, path: str, method: str = "GET", cookie: bool = True, **headers) -> tuple[int, dict, bytes]:
        given = {"Host": self.host, **(self.cookie if cookie else {}), **headers}
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connection:
            lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
            connection.sendall("\r\n".join(lines).encode())
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            return answer.status, dict(answer.getheaders()), answer.read()

    def stream(self) -> http.client.HTTPResponse:
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        self.connection.request("GET", "/events", headers=self.cookie)
        return self.connection.getresponse()


def next_event(answer) -> dict:
    """The next update in a stream."""
    while not (line := answer.readline()).startswith(b"data: "):
        assert line, "the stream has ended"
    assert len(line) < SMALL and answer.readline() == b"\n"
    return json.loads(line.removeprefix(b"data: "))


def next_event_with(answer, holds) -> dict:
    """The next update of which something holds."""
    while not holds(update := next_event(answer)):
        pass
    return update


@contextlib.contextmanager
def serving():
    """Function that starts servers, which end with the context."""
    servers = []

    def start(run: Run, host: str = "127.0.0.1") -> Client:
        server = Server(Reader(run), host, 0)
        server.feed._every = 0.05
        thread = threading.Thread(target=server.serve)
        thread.start()
        servers.append((server, thread))
        return Client(server)

    try:
        yield start
    finally:
        for server, thread in servers:
            server.shutdown()
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def serve():
    with serving() as start:
        yield start


@pytest.fixture(scope="module")
def client(experiment):
    """A client of a server of the experiment."""
    with serving() as start:
        yield start(experiment[0])


def test_the_token_opens_the_page_and_the_cookie_all_else(client):
    token = client.server.token
    assert len(token) >= 40 and client.server.address == f"http://{client.host}/?token={token}"
    status, headers, body = client.ask(f"/?token={token}", cookie=False)
    assert status == 200 and b"<b>run" not in body and b"&lt;b&gt;run" in body
    cookie = headers["Set-Cookie"].split("; ")
    assert cookie[0] == f"rlsnet-live-{client.server.port}={token}" and {"HttpOnly", "SameSite=Strict", "Path=/"} == set(cookie[1:])
    wanted = re.findall(r'(?:src|href)="(?!data:)([^"]*)"', body.decode())
    assert {"page.css", "live.css", "charts.js", "live.js"} < set(wanted)
    for name in wanted:
        assert client.ask(f"/{name}")[0] == 200 and client.ask(f"/{name}", cookie=False)[0] == 403
    assert client.ask("/")[0] == 200  # loaded again without the token


@pytest.mark.parametrize("given", ["", "?token=", "?token=x", "?token={token}x", "?x=1&token={token}", "?token=%00", "?token=\u00e9"])
def test_without_the_token_nothing_is_shown(client, given):
    status, headers, body = client.ask(f"/{given.format(token=client.server.token)}", cookie=False)
    assert status == 403 and b"token" in body and client.server.token.encode() not in body and "Set-Cookie" not in headers
    for path in ("/events", "/unit?number=1", "/saved.html", f"/map?condition=0&token={client.server.token}"):
        assert client.ask(path, cookie=False)[0] == client.ask(path, cookie=False, Cookie=f"{client.server.cookie}=x")[0] == 403


def test_other_names_of_this_computer_and_other_sites_are_refused(client):
    """A site whose name points to 127.0.0.1 (DNS rebinding) has its own name in the header Host."""
    port = client.server.port
    for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        assert client.ask("/unit?number=1", Host=host)[0] == 200
    for host in ("127.0.0.1", f"127.0.0.1:{port + 1}", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", f"localhost.:{port}x", ""):
        status, headers, body = client.ask(f"/?token={client.server.token}", Host=host)
        assert status == 403 and client.server.token.encode() not in body
    assert client.ask("/unit?number=1", Origin=f"http://{client.host}")[0] == 200
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"https://{client.host}"):
        assert client.ask("/unit?number=1", Origin=origin)[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
def test_only_get_and_head(client, method):
    assert client.ask("/", method)[0] in (405, 501)
    status, headers, body = client.ask("/saved.html", "HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) > 1000


PATHS = [
    "/../config.yaml", "/config.yaml", "/%2e%2e/config.yaml", "/..%2fconfig.yaml", "//127.0.0.1/config.yaml", "/live.js/../../state.py",
    "/./live.js", "/live.js/", "/live%2ejs", "/page.html", "/templates/live.js", "file:///etc/passwd", "/etc/passwd", "\\..\\config.yaml",
    "*",     "http://[", "/live.js%00", "/" + "a" * 60_000, "/unit?" + "a" * 60_000, "/?token=" + "a" * 60_000, "/" + "a" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30])
def test_no_address_leads_to_a_file(client, path):
    status, headers, body = client.ask(path)
    assert status in (400, 404, 414) and len(body) < 1000 and b"root:" not in body and b"network" not in body
    assert client.ask("/unit?number=1")[0] == 200


@pytest.mark.parametrize(
    "path", ["/unit", "/unit?number=", "/unit?number=-1", "/unit?number=300", "/unit?number=1e3", "/unit?number=٣", "/map?condition=2"]
    + ["/map?condition=99999999999999999999", "/unit?number=1&a=1&b=1&c=1&d=1&e=1", "/units"],
)  # fmt: skip
def test_questions_that_have_no_answer(client, path):
    status, headers, body = client.ask(path)
    assert status in (400, 404) and b"Traceback" not in body and headers["Content-Type"].startswith("text/plain")


def test_each_answer_forbids_what_it_does_not_need(client):
    for path in ("/", "/live.js", "/unit?number=1", "/nothing", "/saved.html"):
        _, headers, _ = client.ask(path)
        policy = dict(each.strip().split(" ", 1) for each in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["Referrer-Policy"] == "no-referrer"


def test_what_changes_is_sent_and_nothing_else(run, serve):
    client = serve(run)
    answer = client.stream()
    assert answer.getheader("Content-Type") == "text/event-stream"
    first = next_event(answer)
    assert {"tiles", "iterations", "notes", "running"} <= first.keys() and first["rates"] is None
    last = first["iterations"]["iteration"][-1]
    append_line(run.path / "metrics.jsonl", watched.iteration_line(last + 1))
    update = next_event(answer)
    assert update["iterations"]["iteration"][-1] == last + 1 and "notes" not in update and "rates" not in update
    watched.write_online(run.path, 7, n_units=20)
    update = next_event_with(answer, lambda update: "rates" in update)
    assert update["rates"]["trial"] == 7 and client.ask("/map?condition=1")[0] == 200
    (run.path / "online.zarr" / "zarr.json").write_text("[")
    next_event_with(answer, lambda update: any("online.zarr" in each for each in update.get("notes", [])))
    (run.path / "metrics.jsonl").unlink()
    shutil.rmtree(run.path / "online.zarr")
    next_event_with(answer, lambda update: update.get("notes") == [])
    client.connection.close()


def test_a_fault_in_the_state_is_shown_and_ends_nothing(run, serve, monkeypatch):
    monkeypatch.setattr(Reader, "state", lambda self: {"value": float("nan")})
    client = serve(run)
    assert "could not be read" in next_event(client.stream())["fault"]
    monkeypatch.setattr(Reader, "state", lambda self: {"value": 1})
    assert next_event_with(client.stream(), lambda update: "value" in update)["fault"] == ""


def test_a_page_that_nobody_looks_at_reads_nothing(run, serve, monkeypatch):
    readings, state = [], Reader.state
    monkeypatch.setattr(Reader, "state", lambda self: readings.append(1) or state(self))
    client = serve(run)
    time.sleep(0.3)
    assert not readings
    answer = client.stream()
    next_event(answer)
    answer.close()
    client.connection.close()
    deadline = time.monotonic() + 5
    while client.server.feed._lookers and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    seen = len(readings)
    time.sleep(0.3)
    assert 0 < seen == len(readings)


def test_an_answer_that_fails_is_one_line(run, serve, monkeypatch, capfd):
    watched.write_online(run.path, 1, n_units=3)
    monkeypatch.setattr(Reader, "heat_map", lambda self, condition: 1 / 0)
    client = serve(run)
    for path in ("/map?condition=0", "/saved.html"):
        status, _, body = client.ask(path)
        assert status == 500 and body == b"This could not be read from the files of the run (division by zero)."
    assert client.ask("/unit?number=1")[0] == 200 and capfd.readouterr().err == ""


def test_the_address_given_to_a_browser_opens_the_page_a_single_time(run, serve):
    client = serve(run)
    once = client.server.address_for_once().partition("/?")[2]
    assert client.server.token not in once
    status, headers, _ = client.ask(f"/?{once}", cookie=False)
    assert status == 200 and client.server.token in headers["Set-Cookie"]
    assert client.ask(f"/?{once}", cookie=False)[0] == 403 and client.ask("/")[0] == 200


def test_too_many_clients_are_sent_away_and_those_that_go_make_room(run, serve):
    client = serve(run)
    streams = []
    for _ in range(MOST_STREAMS):
        answer = client.stream()
        next_event(answer)
        streams.append((answer, client.connection))
    status, _, body = client.ask("/events")
    assert status == 503 and b"open already" in body
    idle = [socket.create_connection(("127.0.0.1", client.server.port)) for _ in range(MOST_CONNECTIONS - MOST_STREAMS)]
    assert client.ask("/")[0] == 503
    for each in idle:
        each.close()
    for answer, connection in streams:
        answer.close()
        connection.close()
    deadline = time.monotonic() + 20
    while (status := client.ask("/events", "HEAD")[0]) != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert status == 200


# ---------------------------------------------------------------- command


def test_the_page_to_keep_has_the_data_and_loads_nothing(experiment, tmp_path, capsys):
    run, _, data, _ = experiment
    out = tmp_path / "page.html"
    assert dispatch(["live", str(run.path), f"out={out}"]) == 0 and "Wrote" in capsys.readouterr().out
    text = out.read_text()
    assert 'name="generator" content="rlsnet' in text[:4096] and not re.search(r"""(?:src|href)=["'](?!data:|#|saved\.html)""", text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text) and "<b>run</b>" not in text
    stored = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert stored["state"]["name"] == "<b>run" and [each["condition"] for each in stored["maps"]] == [0, 1]
    unit = stored["units"][5]
    np.testing.assert_allclose(unit["data"], data[:, :, unit["unit"]], rtol=1e-3)
    assert set(stored["state"]["rates"]["chosen"].values()) <= {each["unit"] for each in stored["units"]}
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    policy = html.unescape(re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1])
    assert len(scripts) == 2 and all(page._hash(each) in policy for each in scripts) and "unsafe" not in policy and "'self'" not in policy
    with pytest.raises(UserError, match="overwrite=true"):
        dispatch(["live", str(run.path), f"out={out}"])
    Page(re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))  # its tags balance


def test_live_loads_neither_jax_nor_matplotlib(run, tmp_path):
    script = (
        "import sys; from rlsnet.cli.main import dispatch; import rlsnet.analysis.live.server, rlsnet.analysis.live.terminal;"
        f"dispatch(['live', {str(run.path)!r}, 'out={tmp_path / 'p.html'}']); dispatch(['live', {str(run.path)!r}, 'terminal=true']);"
        "print([name for name in ('jax', 'matplotlib', 'hydra') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


MISTAKES = [
    ([], "live: expected one run folder"),
    (["nowhere"], "nowhere: no such folder"),
    (["{run}", "terminal=true", "out=x.html"], "exclude each other"),
    (["{run}", "host=0.0.0.0"], "expose=true"),
    (["{run}", "host=::", "port=8123"], "ssh -N -L 8123:127.0.0.1:8123"),
    (["{run}", "host=192.0.2.7", "expose=true"], "host=192.0.2.7 port=0: cannot be listened at"),
    (["{run}", "port=70000"], "at most 65535"),
    (["{run}", "prot=80"], "Did you mean port"),
    (["{run}", "out=x.png"], "an HTML page is written"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=lambda given: " ".join(given) if isinstance(given, list) else None)
def test_mistakes_have_one_line(run, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        dispatch(["live", *(each.format(run=run.path) for each in arguments)])
    assert message in str(error.value) and "\n" not in str(error.value)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UserError, match="cannot be listened at .*; expected a port that is free"),
    ):
        dispatch(["live", str(run.path), f"port={taken.getsockname()[1]}"])


def interruptible(command, **options):
    """A process that SIGINT ends; a shell starts background jobs, and what they start, with SIGINT ignored."""
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def test_the_command_prints_the_address_and_ends_with_an_interrupt(run):
    command = [sys.executable, "-m", "rlsnet", "live", str(run.path)]
    process = interruptible(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\?token=(\S+)\n", process.stdout.readline())
    assert address and f"ssh -N -L {address[1]}:127.0.0.1:{address[1]}" in process.stdout.readline()
    connection = http.client.HTTPConnection("127.0.0.1", int(address[1]), timeout=60)
    connection.request("GET", f"/?token={address[2]}")
    assert connection.getresponse().status == 200
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "no longer served" in err and "Traceback" not in err


def test_an_exposed_page_takes_addresses_in_numbers_and_the_name_of_the_computer(run, serve):
    client = serve(run, "0.0.0.0")
    port = client.server.port
    assert client.ask("/", Host=f"192.168.1.5:{port}")[0] == client.ask("/", Host=f"{os.uname().nodename}:{port}")[0] == 200
    assert client.ask("/", Host=f"evil.example:{port}")[0] == 403


# ---------------------------------------------------------------- terminal


def test_a_sparkline_keeps_low_and_high():
    assert terminal.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert terminal.sparkline([0, None, 1], 10, 0, 2) == "▁ ▅" and terminal.sparkline([None, None], 5) == "  "
    assert terminal.sparkline([0, 0, 4, 4, 8, 8], 3) == "▁▅█" and terminal.sparkline([3, 3], 2) == "▁▁"


def test_the_terminal_shows_the_numbers_of_the_page_once_where_it_is_none(experiment, capsys):
    run, _, data, model = experiment
    assert dispatch(["live", str(run.path), "terminal=true"]) == 0
    text, state = capsys.readouterr().out, state_of(run)
    for label, value, _ in state["tiles"]:
        assert re.search(rf"{label}\s+{re.escape(value)}", text)
    best = state["rates"]["chosen"]["best"]
    assert f"best: probe{'AB'[best % 2]}-{best}" in text and "silence thalamus" in text and "42.9 % of all" in text and "Midbrain" in text
    assert f"{np.corrcoef(data[0, :, best], model[0, :, best])[0, 1]:.2f}" in text and "\x1b" not in text


def test_a_low_window_shows_what_fits_and_names_the_rest(experiment):
    target = Console(file=io.StringIO(), force_terminal=True, width=100, height=22)
    shown = terminal.fitted(terminal.view(reader_of(experiment[0])), target)
    lines = target.render_lines(shown, pad=False)
    text = "".join(segment.text for line in lines for segment in line)
    assert len(lines) <= 22 and "explained signal variance" in text and "too low to show" in text and "firing rates" in text


def test_the_view_in_a_terminal_is_renewed_until_an_interrupt(experiment):
    """In a pseudo-terminal of 90 columns and 30 lines."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "30"}
    command = [sys.executable, "-m", "rlsnet", "live", str(experiment[0].path), "terminal=true"]
    process = interruptible(command, stdin=child, stdout=child, stderr=child, env=environment, start_new_session=True)
    os.close(child)
    shown, deadline = b"", time.monotonic() + 20
    while shown.count(b"not running") < 2 and time.monotonic() < deadline:
        shown += os.read(parent, 2**16)
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(parent, 2**16):
            shown += part
    os.close(parent)
    assert process.wait(60) == 0 and shown.count(b"not running") >= 2 and b"Traceback" not in shown


# ---------------------------------------------------------------- browser


DRAWN = """(() => {
  const canvas = document.querySelector("#maps canvas"), colours = new Set();
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let at = 0; at < pixels.length; at += 4) colours.add(pixels.slice(at, at + 4).join());
  return {
    scroll: document.documentElement.scrollWidth, inner: window.innerWidth, colours: colours.size,
    sections: [...document.querySelectorAll("main section")].filter((each) => !each.hidden).map((each) => each.id),
    curves: [...document.querySelectorAll("path.curve")].filter((each) => each.getAttribute("d").length > 20).length,
    strips: document.querySelectorAll(".strip > svg").length, unit: document.querySelector("#psth figcaption").textContent,
  };
})()"""
CHOOSE = "(() => {{ const s = document.querySelector('{selector}'); s.value = '{value}'; s.dispatchEvent(new Event('change')); }})()"
ALL = ["recording", "scores", "rates", "regions", "prediction"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert CHROMIUM, "chromium is not on PATH"
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 390, 1440])
def test_the_page_to_keep_fits_a_phone_and_a_desk_and_draws_all_its_parts(experiment, run, tmp_path, browser, width):
    """pytest -m browser: of an experiment, and of a run of train."""
    for index, each in enumerate((experiment[0], run)):
        (tmp_path / f"{index}.html").write_text(page.saved(reader_of(each)))
    browser.open(f"file://{tmp_path}/0.html", width)
    worst = state_of(experiment[0])["rates"]["chosen"]["worst"]
    browser.value("document.querySelector('[data-pick=worst]').click()")
    browser.until(f"document.querySelector('#psth figcaption').textContent.startsWith('Unit probe{'AB'[worst % 2]}-{worst} ')")
    found = browser.value(DRAWN)
    assert found["scroll"] <= found["inner"] == width and found["sections"] == ALL
    assert found["curves"] == 2 * 2 + 2 + 1 and found["strips"] == 8 and found["colours"] > 50
    browser.value("(() => { const s = document.querySelector('#search'); s.value = 'midbrain'; s.dispatchEvent(new Event('input')); })()")
    browser.until("document.querySelectorAll('#found button').length === 60")
    browser.open(f"file://{tmp_path}/1.html", width)
    found = browser.value(DRAWN)
    assert found["scroll"] <= found["inner"] == width and found["sections"] == ["scores"] and found["curves"] == 1
    assert not browser.complaints


def act_on_the_page(browser, run: Run) -> None:
    """Chooses units and conditions by all means that the page has."""
    reader, unit = reader_of(run), "document.querySelector('#psth figcaption').textContent.match(/^Unit (\\S+)/)[1]"
    found = reader.heat_map(1)
    browser.value(CHOOSE.format(selector="#map-condition", value="1"))
    browser.until("document.querySelector('#map-condition').value === '1'")
    time.sleep(0.5)
    browser.value("document.querySelector('#maps canvas').scrollIntoView({behavior: 'instant'})")
    left, top, height = (
        browser.value(f"document.querySelector('#maps canvas').getBoundingClientRect().{side}") for side in ("left", "top", "height")
    )
    browser.click(left + 30, top + height * 50.5 / 200)
    browser.until(f"{unit} === '{reader.unit(found['units'][50])['id']}'")
    browser.value("document.querySelector('[data-pick=median]').click()")
    browser.until(f"{unit} === '{reader.unit(reader.state()['rates']['chosen']['median'])['id']}'")
    browser.value("document.querySelector('#scatter').scrollIntoView({behavior: 'instant'})")
    number, *_ = reader.state()["rates"]["dots"][-1]  # the worst one, apart from the others
    x, y = (browser.value(f"[...document.querySelectorAll('.unit-dot')].at(-2).getBoundingClientRect().{side}") for side in ("x", "y"))
    browser.click(x + 3, y + 3)
    browser.until(f"{unit} === '{reader.unit(number)['id']}'")
    browser.value(CHOOSE.format(selector="#condition", value="1"))
    browser.until("document.querySelectorAll('.psths h4').length === 1 && document.querySelector('.psths h4').textContent === 'lick right'")
    browser.value("(() => { const s = document.querySelector('#search'); s.value = 'A-42'; s.dispatchEvent(new Event('input')); })()")
    browser.until("document.querySelectorAll('#found button').length === 1")
    browser.value("document.querySelector('#found button').click()")
    browser.until(f"{unit} === 'probeA-42'")


@pytest.mark.browser
def test_long_names_fit_a_phone(run, tmp_path, browser, monkeypatch):
    """pytest -m browser: names without spaces, and with markup."""
    names = [f"condition_{i}_{'long' * 20}<img src=x onerror=alert(1)>" for i in range(12)]
    monkeypatch.setattr(watched, "CONDITIONS", names)
    monkeypatch.setattr(watched, "REGIONS", ["Region<b>" + "abcdefghij" * 8])
    watched.write_watched(run.path, 24, conditions=names, n_units=60)
    watched.write_ingest(run.path, 24, source="redis://" + "host" * 25, problem="p" * 110, rejected_reason="r" * 110)
    run.path.rename(run.path.with_name("n" * 100))
    (tmp_path / "long.html").write_text(page.saved(reader_of(Run(run.path.with_name("n" * 100)))))
    for width in (360, 1440):
        browser.open(f"file://{tmp_path}/long.html", width)
        browser.until("document.querySelectorAll('path.curve').length >= 4")
        found = browser.value(DRAWN)
        assert found["scroll"] <= found["inner"] == width and browser.value("document.images.length") == 0
    assert not browser.complaints


@pytest.mark.browser
def test_the_served_page_follows_the_run_in_a_browser(run, serve, browser):
    """pytest -m browser: the cookie, the policy, the stream, the questions and the pause work together."""
    watched.write_watched(run.path, 20)
    client = serve(run)
    browser.open(client.server.address, 1440)
    browser.until("document.querySelector('#rates-note').textContent.startsWith('After trial 20:')")
    browser.until("document.querySelectorAll('path.curve').length === 7")
    assert browser.value("location.href") == f"http://{client.host}/" and browser.value("document.cookie") == ""
    found = browser.value(DRAWN)
    assert found["sections"] == ALL and found["colours"] > 50 and found["scroll"] <= 1440
    act_on_the_page(browser, run)
    browser.value("document.querySelector('#pause').click()")
    watched.write_online(run.path, 21)
    time.sleep(1)
    assert browser.value("document.querySelector('#rates-note').textContent").startswith("After trial 20:")
    browser.value("document.querySelector('#pause').click()")
    browser.until("document.querySelector('#rates-note').textContent.startsWith('After trial 21:')")
    browser.open(f"http://{client.host}/", 390)  # loaded again without the token
    browser.until("document.querySelector('#rates-note').textContent.startsWith('After trial 21:')")
    assert not browser.complaints
    client.server.feed.stop()
    client.server.shutdown()
    browser.until("document.querySelector('#status').textContent.startsWith('No connection')")
