"""The preset steinmetz: a small made-up session, and real ones from the folder RLSNET_STEINMETZ, against sums in plain NumPy."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr

from rlsnet.data import importing
from rlsnet.data.import_options import options_of

FOLDER = os.environ.get("RLSNET_STEINMETZ")
SIDES = {"left": np.greater, "right": np.less, "equal": np.equal}


def expected(path):
    """(ids of the units of at least .5 Hz, their regions, [C, M, U] Hz, [C] number of trials) of a session."""
    with np.load(path) as file:
        times, labels, ids, regions = (file[name] for name in ("spike_times", "spike_clusters", "units/id", "units/region"))
        start, left, right = (file[f"trials/{name}"] for name in ("start_time", "contrast_left", "contrast_right"))
    trial = np.searchsorted(start, times, side="right") - 1
    bins = np.floor((times - start[trial]) / 0.01).astype(int)
    counts = np.zeros((len(start), 40, len(ids)))
    np.add.at(counts, (trial, bins, np.searchsorted(ids, labels)), 1)
    lag = np.arange(40)[:, None] - np.arange(40)
    weight = np.where(abs(lag) <= 20, np.exp(-0.5 * (lag / 5) ** 2), 0)  # 50 ms, cut off at 200 ms
    weight /= weight.sum(axis=1, keepdims=True)  # nothing is known beside the window
    rate = np.stack([weight @ counts[side(left, right)].mean(axis=0) / 0.01 for side in SIDES.values()])
    kept = rate.mean(axis=(0, 1)) >= 0.5
    return ids[kept], regions[kept], rate[..., kept], [int(side(left, right).sum()) for side in SIDES.values()]


def check(paths, out, sources=None):
    """Imports sessions with the preset, by their paths or as `sources`, and compares the recording with sums in plain NumPy."""
    importing.import_sources([str(path) for path in sources or paths], out, options_of({"preset": "steinmetz"}), lambda text: None)
    root = zarr.open_group(str(out), mode="r")
    ids, regions, rates, trials = zip(*map(expected, paths), strict=True)
    assert root["condition"][...].tolist() == list(SIDES) and root["unit/id"][...].tolist() == np.concatenate(ids).astype(str).tolist()
    assert root["unit/region"][...].tolist() == np.concatenate(regions).tolist()
    assert [list(each["used"].values()) for each in root.attrs["sessions"]] == list(trials)
    rate = np.concatenate(rates, axis=2)
    np.testing.assert_allclose(root["rate"][...], rate, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(root["unit/mean_rate"][...], rate.mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(root["time"][...], np.arange(0.005, 0.4, 0.01))
    return root


def test_a_session_of_the_same_layout(tmp_path):
    random = np.random.default_rng(0)
    start, rate = 2.0 * np.arange(60), np.repeat([0.0, 0.1, 2, 8, 20, 60], 2)
    counts = random.poisson(rate * 0.01 * np.linspace(0.5, 1.5, 40)[:, None], (60, 40, 12))
    trial, bin_, unit = np.repeat(np.argwhere(counts), counts[counts > 0], axis=0).T
    contrast = {f"trials/contrast_{side}": random.choice([0, 0.25, 0.5, 1], 60) for side in ("left", "right")}
    np.savez(
        tmp_path / "session.npz",
        spike_times=start[trial] + 0.01 * bin_ + 0.005,
        spike_clusters=unit.astype("int32"),
        **{"units/id": np.arange(12), "units/region": np.array(["VISp", "CA1"] * 6)},
        **{"trials/start_time": start, "trials/stop_time": start + 1, "trials/feedback": random.choice([-1, 1], 60)},
        **contrast,
    )
    root = check([tmp_path / "session.npz"], tmp_path / "one.zarr")
    assert root["unit/id"][...].tolist() == [str(u) for u in range(4, 12)]
    assert dict(root.attrs["dropped"])["no spikes"] == 2


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="RLSNET_STEINMETZ is not set to the folder with the sessions")
def test_all_real_sessions(tmp_path, record_check):
    """The folder as source: units, trials, spikes and rates of every session against NumPy."""
    paths = sorted(Path(FOLDER).glob("session*.npz"))
    root = check(paths, tmp_path / "all.zarr", [FOLDER])
    counted = []
    for number, (path, entry) in enumerate(zip(paths, root.attrs["sessions"], strict=True)):
        with np.load(path) as file:
            ids, n_trials = file["units/id"], len(file["trials/start_time"])
            spikes = np.bincount(np.searchsorted(ids, file["spike_clusters"]), minlength=len(ids))
        kept = np.isin(ids.astype(str), root["unit/id"][...][root["unit/session"][...] == entry["name"]])
        stored = int(root[f"trials/{number}/counts"][...].sum(dtype=np.int64))
        assert (entry["units"], entry["kept"], entry["trials"]) == (len(ids), kept.sum(), n_trials) and stored == spikes[kept].sum()
        counted.append((len(ids), int(kept.sum()), n_trials, stored))
    units, kept_units, trials, spikes_stored = (sum(column) for column in zip(*counted, strict=True))
    measured = f"{kept_units} of {units} units, {trials} trials, {spikes_stored} spikes in {len(paths)} sessions"
    record_check("import of Steinmetz et al.", "units, trials, spikes and rates of every session", "those of NumPy", measured)
