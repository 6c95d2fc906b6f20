"""Tables of spikes and of values in bins: labels that are not merged, single trials, and cells that cannot be read."""

import numpy as np
import pytest
from test_units_and_layouts import BINS, COUNTS, EVENTS, LABELS, N_TRIALS, N_UNITS, RATES, RELATIVE, TIMES, check, imported, refused

from rlsnet.data.formats import table_files

CENTRES = np.round(BINS[:-1] + 0.01, 3)
WINDOW = ["window=[0.2,0.8]", "kernel=none"]


def write(path, **columns):
    """A table with the columns, as text."""
    rows = zip(*columns.values(), strict=True)
    path.write_text(",".join(columns) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def relative_spikes(first=1):
    """Columns unit, trial, time of the spikes in each trial."""
    sizes = [[len(each) for each in trains] for trains in RELATIVE]
    trial = np.concatenate([np.repeat(first + np.arange(N_TRIALS), each) for each in sizes])
    times = np.concatenate([each for trains in RELATIVE for each in trains])
    return {"unit": np.repeat(np.arange(N_UNITS), [sum(each) for each in sizes]), "trial": trial, "time": times}


# Texts


def test_another_encoding(tmp_path):
    (tmp_path / "s.csv").write_bytes("time (\u00b5s);unit\n1;2\n".encode("cp1252"))
    refused(tmp_path / "s.csv", tmp_path, "s.csv: is not in UTF-8, from byte 7 on; expected UTF-8, as iconv")


@pytest.mark.parametrize(
    ("column", "kept"),
    [
        ("1_12 11_2 2_1", "1_12 11_2 2_1"),
        ("1_1 11 2", "1_1 11 2"),
        ("1e1 10 2", "1e1 10 2"),
        ("1.0e1 10 2", "1.0e1 10 2"),
        ("01 1 001", "01 1 001"),
        ("07 08 09", "07 08 09"),
        ("1.5 1e1 10", [1.5, 10, 10]),
        ("1 2.0 3", [1, 2, 3]),
        ("0 -0 1.00", [0, 0, 1]),
        ("1e3 2e3 15", [1000, 2000, 15]),
        ("12 1234567890123456789 3", [12, 1234567890123456789, 3]),
    ],
)
def test_texts_that_are_no_numbers(tmp_path, column, kept):
    for time in (0.5, "0.5 s"):  # a table of numbers, and one with texts
        write(tmp_path / "t.csv", time=[time] * 3, unit=column.split())
        found = table_files.read_table(tmp_path / "t.csv")["unit"]
        assert found.tolist() == (kept.split() if isinstance(kept, str) else kept)


@pytest.mark.parametrize("names", ["1_12 11_2 112 1e2", "1 01 001 1.0e0", "1234567890123456789 1234567890123456790 3 4"])
def test_units_with_similar_labels(tmp_path, names):
    names = np.array(names.split())
    write(tmp_path / "s.csv", time=TIMES, unit=names[LABELS])
    write(tmp_path / "trials.csv", start_time=EVENTS, stim=["11", "1_1"] * 10)
    root, _ = imported(tmp_path / "s.csv", tmp_path, "kernel=none", "conditions.a=stim == 11", "conditions.b=stim == '1_1'")
    assert root["unit/id"].shape == (N_UNITS,)
    for unit, name in enumerate(root["unit/id"][...]):
        mine = int(np.flatnonzero(names == name)[0])
        for condition in (0, 1):
            np.testing.assert_allclose(root["rate"][condition, :, unit], COUNTS[condition::2, :, mine].mean(axis=0) / 0.02, atol=1e-4)


@pytest.mark.parametrize(
    "text",
    ["a,b,\n.5,1,\n2,3,\n", "a,b\n.5,1,,\n2,3,\n", "a,b,,\n.5,1\n2,3\n", "a,,b\n.5,,1\n2,,3\n"]
    + ["sep=;\na;b\n0,5;1\n2;3\n", '"sep=|"\r\na|b\r\n0.5|1\r\n2|3\r\n', "SEP=,\n# x\na,b\n.5,1\n2,3\n"],
)
def test_empty_columns_and_declared_separators(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, newline="")
    assert {name: column.tolist() for name, column in table_files.read_table(tmp_path / "t.csv").items()} == {"a": [0.5, 2], "b": [1, 3]}


def test_compressed_tables_are_named(tmp_path):
    (tmp_path / "t.csv.gz").write_bytes(b"")
    refused(tmp_path / "t.csv.gz", tmp_path, "is compressed; expected t.csv, the unpacked file")
    np.savez(tmp_path / "s.npz", spike_times=TIMES, spike_clusters=LABELS)
    refused(tmp_path / "s.npz", tmp_path, "is compressed", f"trials_table={tmp_path / 't.csv.gz'}")


@pytest.mark.parametrize(("text", "unit"), [('"1,022.50"', "s"), ("12.5 s", "s"), ("12.5 s", "ms"), ("1_2", "s")])
@pytest.mark.parametrize("name", ["start_time", "cue"])
def test_times_of_trials_that_cannot_be_read(tmp_path, text, unit, name):
    write(tmp_path / "s.csv", time=TIMES, unit=LABELS)
    columns = {"start_time": EVENTS, "cue": [*EVENTS[:-1], "NA"]}
    trials = write(tmp_path / "trials.csv", **columns | {name: [*columns[name][:4], text, *columns[name][5:]]})
    pattern = f"trials.csv: {name} is '{text.strip(chr(34))}' in row 5; expected numbers such as"
    refused(tmp_path / "s.csv", tmp_path, pattern, f"align={name}", f"time_unit.trials={unit}")
    write(trials, **columns)
    root, _ = imported(tmp_path / "s.csv", tmp_path, "align=cue")
    assert root["unit/n_trials"][0, 0] == N_TRIALS - 1


# Units


@pytest.mark.parametrize("name", ["channel", "Electrode", "shank_id", "probe", "Tetrode Nr"])
def test_units_numbered_in_each_channel(tmp_path, name):
    write(tmp_path / "trials.csv", start_time=EVENTS)
    path = write(tmp_path / "s.csv", time=TIMES, **{name: LABELS // 2 + 1}, unit=LABELS % 2)
    refused(path, tmp_path, f"unit 0 occurs with 2 values of {name} .*variables.spike_clusters={name},unit if units.*=unit if this is one")
    check(path, tmp_path, f"variables.spike_clusters={name},unit")
    root, _ = imported(path, tmp_path, "variables.spike_clusters=unit", "kernel=none")
    np.testing.assert_allclose(root["rate"][0, :, 1], RATES[:, [1, 3]].sum(axis=1), atol=1e-4)
    write(path, time=TIMES, **{name: LABELS // 2 + 1}, unit=LABELS)
    check(path, tmp_path)


def test_several_sessions_in_a_table(tmp_path):
    write(tmp_path / "trials.csv", start_time=EVENTS)
    path = write(tmp_path / "s.csv", time=TIMES, unit=LABELS, session=np.where(TIMES < 100, "a", "b"))
    refused(path, tmp_path, r"has 2 values of session \(a, b, ...\); expected one table for each, or variables.spike_clusters=unit")
    check(path, tmp_path, "variables.spike_clusters=unit")


@pytest.mark.parametrize("name", ["patient", "fly", "rec", "Participant ID", "cohort", "cell_type", "region"])
def test_units_that_are_recorded_in_different_trials(tmp_path, name):
    """Units of several sessions in a table are no session; those of two kinds, in the same trials, are."""
    spikes = relative_spikes(1)
    named = {name: np.where(spikes["unit"] < 2, "a", "b")}
    path, pattern = tmp_path / "s.csv", "expected one table for each|or variables.spike_clusters=unit if all units and trials are recorded"
    write(path, **spikes, **named)
    known = name in ("patient", "fly", "rec", "Participant ID")
    refused(path, tmp_path, f"has 2 values of {name} .a, b, .*{pattern}") if known else check(path, tmp_path)
    some = (spikes["unit"] < 2) | (spikes["trial"] <= 12)
    write(path, **{key: each[some] for key, each in (spikes | named).items()})
    if name != "region":
        refused(path, tmp_path, "has 2 values" if known else f"units of {name} b have no spikes in 8 of 20 trials.*{pattern}")
    root, _ = imported(path, tmp_path, "variables.spike_clusters=unit", "kernel=none")
    assert root["unit/n_trials"][:, 0].tolist() == [20] * 4
    spikes["unit"] = spikes["unit"] + 4 * (spikes["trial"] % 7 == 0)  # a unit with few spikes, of a kind of its own
    write(path, **spikes, **{name: spikes["unit"] // 2})
    if not known:
        imported(path, tmp_path)


# Trials of spikes


@pytest.mark.parametrize("name", ["condition", "Block", "run_id", "orientation"])
@pytest.mark.parametrize("table", [False, True])
def test_trials_numbered_in_each_block(tmp_path, name, table):
    """Trials 0 to 9 of block a are those of even, of block b those of odd number."""
    spikes = relative_spikes(0)
    columns = spikes | {"trial": spikes["trial"] // 2, name: np.where(spikes["trial"] % 2, "b", "a")}
    path, arguments = write(tmp_path / "s.csv", **columns), ["kernel=none"]
    if name == "orientation" and not table:
        refused(path, tmp_path, "trial 0 occurs with several values of orientation; expected variables.spike_trials=orientation,trial")
        arguments.append("variables.spike_trials=orientation,trial")
    if table:
        rows = np.arange(N_TRIALS)[::-1]
        write(tmp_path / "trials.csv", **{name: np.where(rows % 2, "b", "a"), "trial": rows // 2, "side": rows % 2})
    if not (name == "orientation" and table):
        column = "side == " if table else f"{name} == " if name in ("condition", "orientation") else None
        conditions = (
            ["conditions.a=" + column + ("0" if table else "'a'"), "conditions.b=" + column + ("1" if table else "'b'")] if column else []
        )
        root, _ = imported(path, tmp_path, *arguments, *conditions)
        expected = [COUNTS[half::2].mean(axis=0) / 0.02 for half in (0, 1)] if conditions else [RATES]
        np.testing.assert_allclose(root["rate"][...], expected, atol=1e-4)
        assert root["unit/n_trials"][0].tolist() == ([10, 10] if conditions else [20])
    if table:
        write(path, **spikes | {"trial": spikes["trial"] // 2})
        refused(path, tmp_path, "the column trial of the 20 trials has 9 in several rows; expected a different label")


def test_spikes_of_trials_that_the_table_does_not_have(tmp_path):
    spikes = relative_spikes(1)
    path = write(tmp_path / "s.csv", **{name: [*each, {"unit": 0, "trial": 0, "time": 0.5}[name]] for name, each in spikes.items()})
    write(tmp_path / "trials.csv", trial=1 + np.arange(N_TRIALS))
    refused(path, tmp_path, f"1 of {len(spikes['unit']) + 1:,} spikes have trials that the column trial of the 20 trials does not have: 0;")
    write(path, **spikes)
    write(tmp_path / "trials.csv", trial=np.arange(3, N_TRIALS + 1))
    refused(path, tmp_path, "of the 18 trials does not have: 1, nor 1 other labels; expected all trials")


def test_a_table_of_trials_that_disagrees(tmp_path):
    spikes = relative_spikes(1)
    path = write(tmp_path / "s.csv", **spikes, block=(spikes["trial"] > 10) + 1)
    write(tmp_path / "trials.csv", trial=1 + np.arange(N_TRIALS), block=1 + np.arange(N_TRIALS) % 2)
    refused(path, tmp_path, "block is 1 for a spike, but 2 for its trial in the table")
    write(tmp_path / "trials.csv", trial=1 + np.arange(N_TRIALS), block=1 + np.arange(N_TRIALS) // 10)
    check(path, tmp_path)
    write(tmp_path / "trials.csv", trial=[f"{k + 1:03}" for k in range(N_TRIALS)], block=1 + np.arange(N_TRIALS) // 10)
    check(path, tmp_path)
    write(tmp_path / "trials.csv", trial=5 + 2 * np.arange(N_TRIALS))
    refused(path, tmp_path, "trials that the column trial of the 20 trials does not have: 1, nor 11 other labels")


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_trials_without_spikes(tmp_path, suffix):
    """Silent trials of a slow unit are asked for; a gap in the numbers of trials with many spikes is mentioned."""

    def source(unit, trial, time):
        if suffix == ".csv":
            return write(tmp_path / "s.csv", unit=unit, trial=trial, time=time)
        np.savez(tmp_path / "s.npz", spike_times=time, spike_clusters=unit, spike_trials=trial)
        return tmp_path / "s.npz"

    rng = np.random.default_rng(1)
    trial = np.sort(rng.integers(1, 101, 100))
    time = rng.uniform(0, 1, 100)
    path = source(np.zeros(100, int), trial, time)
    refused(path, tmp_path, "with 1.. spikes in a trial, they may be silent.*expected trials_table=FILE.csv with a column trial", *WINDOW)
    table = write(tmp_path / "all.csv", trial=1 + np.arange(100))
    root, _ = imported(path, tmp_path, *WINDOW, f"trials_table={table}")
    assert root["unit/mean_rate"][0] == pytest.approx(((time >= 0.2) & (time < 0.8)).sum() / 100 / 0.6)
    spikes = relative_spikes(1)
    some = spikes["trial"] != 7
    _, lines = imported(source(*(each[some] for each in spikes.values())), tmp_path, "kernel=none")
    assert "all 19" in lines[0] and "no spike has the trial 7, which are taken as not recorded; trials_table=" in lines[1]


@pytest.mark.parametrize(
    ("label", "texts"), [*((each, False) for each in ("", "NaN", -1, "NA")), *((each, True) for each in ("", "NA", "none"))]
)
def test_spikes_between_trials(tmp_path, label, texts):
    spikes = relative_spikes(1)
    trial = [f"t{each}" if texts else each for each in spikes["trial"]]
    between = np.arange(-2, 1, 0.01)
    columns = {"unit": [*spikes["unit"], *[0] * 300], "trial": [*trial, *[label] * 300], "time": [*spikes["time"], *between]}
    lines = check(write(tmp_path / "s.csv", **columns), tmp_path)
    assert "of 20 trials all 20" in lines[0] and "spikes without a time or a trial, left out: 300" in lines[0]


@pytest.mark.parametrize("counted", [False, True])
def test_trials_end_at_their_stop_time(tmp_path, counted):
    """Every second trial ends 0.5 s after its start; a trial counts only if it lasts until the end of the window."""
    short, stop = np.arange(N_TRIALS) % 2 == 1, np.where(np.arange(N_TRIALS) % 2 == 1, 0.5, 1.0)
    spikes = relative_spikes(0)
    kept = spikes["time"] < stop[spikes["trial"]]
    counts = np.where((CENTRES > 0.5)[:, None] & short[:, None, None], 0, COUNTS)
    if counted:
        np.savez(tmp_path / "s.npz", counts=counts, time=CENTRES)
        path = tmp_path / "s.npz"
    else:
        path = write(tmp_path / "s.csv", **{name: each[kept] for name, each in spikes.items()})
    write(tmp_path / "trials.csv", trial=np.arange(N_TRIALS), start_time=EVENTS, stop_time=EVENTS + stop)
    root, lines = imported(path, tmp_path, "kernel=none", "window=[-1,1]")
    np.testing.assert_allclose(root["rate"][0], COUNTS[~short, 50:].mean(axis=0) / 0.02, atol=1e-4)
    assert root["unit/n_trials"][0, 0] == 10 and "10 of 20 trials end before the window does, and do not count" in lines[1]
    root, lines = imported(path, tmp_path, "kernel=none", "window=[-1,0.5]")
    np.testing.assert_allclose(root["rate"][0], COUNTS[:, 50:125].mean(axis=0) / 0.02, atol=1e-4)


# Values in bins


def tidy(values, **lead):
    """Columns of a tidy table of values [first, time, unit]; `lead` names the first axis."""
    first, time, unit = (each.ravel() for each in np.indices(values.shape))
    return {name: np.asarray(each)[first] for name, each in lead.items()} | {"time": CENTRES[time], "unit": unit, "value": values.ravel()}


def renamed(columns, **names):
    return {names.get(name, name): each for name, each in columns.items()}


@pytest.mark.parametrize("value", ["count", "Spike Counts", "n_spikes", "num_spikes"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_tidy_tables_of_counts(tmp_path, value, shuffled):
    columns = renamed(tidy(COUNTS, trial=1 + np.arange(N_TRIALS)), value=value)
    order = np.random.default_rng(0).permutation(COUNTS.size) if shuffled else slice(None)
    check(write(tmp_path / "s.csv", **{name: each[order] for name, each in columns.items()}), tmp_path)


def test_tidy_tables(tmp_path):
    """Rates with and without conditions, ragged trials, units of channels, numbers of bins, other names, and what is refused."""
    path, trials = tmp_path / "s.csv", np.arange(N_TRIALS)
    two = np.stack([RATES, RATES + 1]) + 0.25
    root, _ = imported(write(path, **renamed(tidy(two, condition=["a", "b"]), value="firing_rate")), tmp_path)
    np.testing.assert_allclose(root["rate"][...], two, rtol=1e-5)
    np.testing.assert_allclose(root["time"][...], CENTRES)
    assert root["condition"][...].tolist() == ["a", "b"]
    root, _ = imported(write(path, **renamed(tidy(two[:1]), value="Rate (Hz)")), tmp_path)
    np.testing.assert_allclose(root["rate"][...], two[:1], rtol=1e-5)
    columns = tidy(COUNTS, trial=trials)
    write(path, **renamed(columns, value="y"))
    refused(path, tmp_path, "has a row for each trial, time and unit, as values in bins have.*variables.counts=y or variables.rate=y")
    check(path, tmp_path, "variables.counts=y")
    write(path, **renamed(columns, value="count") | {"unit": columns["unit"] % 2, "channel": columns["unit"] // 2})
    refused(path, tmp_path, "unit 0 occurs with 2 values of channel")
    check(path, tmp_path, "variables.spike_clusters=channel,unit")
    write(path, **renamed(columns, value="count", time="bin") | {"bin": np.rint((columns["time"] + 1.99) / 0.02).astype(int)})
    check(path, tmp_path, "bin=20", "window=[-2,1]")
    write(path, **renamed(columns, value="count") | {"count": [*COUNTS.ravel()[:-1], "x"]})
    refused(path, tmp_path, "count is 'x' in row 12000; expected numbers")
    some = columns["value"] > 0
    write(path, **{name: each[some] for name, each in renamed(columns, value="count").items()})
    refused(path, tmp_path, "none with count 0; expected rows for bins without spikes too")
    write(path, **{name: [*each, each[0]] for name, each in renamed(columns, value="count").items()})
    refused(path, tmp_path, "has 2 rows for trial 0, time -1.99, unit 0; expected one row")
    write(path, time=TIMES, unit=LABELS, rate=np.array([10.5, 3, 7, 8])[LABELS])  # a rate of the unit, not of a bin
    write(tmp_path / "trials.csv", start_time=EVENTS)
    check(path, tmp_path)


@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize("kept", ["ragged", "nonzero", "one unit less"])
def test_values_in_a_part_of_the_bins(tmp_path, clock, kept):
    """Rows of values under any name are not taken for spikes, though rows for some bins are missing."""
    columns = tidy(COUNTS, trial=np.arange(N_TRIALS))
    ragged = (columns["time"] < 0.5) | (columns["trial"] % 2 == 0)
    rows = {"ragged": ragged, "nonzero": columns["value"] > 0, "one unit less": (columns["unit"] != 3) | (columns["trial"] < 12)}[kept]
    columns = {name: each[rows] for name, each in columns.items()}
    if clock:  # the trials begin at times that are no multiples of a bin
        write(tmp_path / "trials.csv", start_time=EVENTS)
        columns["time"] = np.round(columns["time"] + (EVENTS + 0.0137 * np.arange(N_TRIALS) ** 2)[columns.pop("trial")], 4)
    path = tmp_path / "s.csv"
    named = "expected variables.counts=activity or variables.rate=activity, or variables.spike_times=time if each row is a spike"
    refused(write(path, **renamed(columns, value="activity")), tmp_path, named)
    write(path, **renamed(columns, value="spikes"))
    if kept == "nonzero":
        refused(path, tmp_path, "none with spikes 0; expected rows for bins without spikes too")
    elif clock:
        refused(path, tmp_path, "expected centres of bins in s, ascending in equal steps")
    else:
        root, _ = imported(path, tmp_path, "kernel=none", "window=[-2,0.5]")
        expected = COUNTS[:, :125].mean(axis=0) / 0.02
        some = COUNTS[:12, :125].mean(axis=0) / 0.02
        np.testing.assert_allclose(root["rate"][0], np.where((np.arange(4) == 3) & (kept != "ragged"), some, expected), atol=1e-4)


@pytest.mark.parametrize("step", [0, 1 / 30000, 1e-3, 1e-2])
@pytest.mark.parametrize("relative", [False, True])
def test_spikes_with_further_columns(tmp_path, step, relative):
    """Amplitudes and running numbers of spikes do not make them values in bins, even if times are rounded."""
    columns = relative_spikes(1) if relative else {"unit": LABELS, "time": TIMES}
    times = np.round(columns["time"] / step) * step if step else columns["time"]
    size = len(times)
    more = {"amplitude": np.random.default_rng(0).normal(100, 10, size).round(2), "n": np.arange(size), "depth": 10.5 * columns["unit"]}
    path = write(tmp_path / "s.csv", **columns | {"time": times} | more)
    write(tmp_path / "trials.csv", trial=1 + np.arange(N_TRIALS), start_time=EVENTS)
    root, _ = imported(path, tmp_path, *WINDOW)
    np.testing.assert_allclose(root["rate"][0].mean(axis=0), RATES[110:140].mean(axis=0), rtol=0.05)


def test_counts_of_bins_as_short_as_spike_times(tmp_path):
    spikes = relative_spikes(1)
    path = write(tmp_path / "s.csv", **spikes | {"time": np.round(spikes["time"], 3), "spikes": 1 + (spikes["time"] > 0.8)})
    refused(path, tmp_path, "spikes may be the number of spikes in a bin; expected variables.counts=spikes, or variables.spike_times=time")
    root, _ = imported(path, tmp_path, "variables.spike_times=time", *WINDOW)
    np.testing.assert_allclose(root["rate"][0].mean(axis=0), RATES[110:140].mean(axis=0), rtol=0.05)


def test_rates_without_the_rows_of_rate_0(tmp_path):
    columns = renamed(tidy(COUNTS / 0.02 + 0.5 * (COUNTS > 0), trial=np.arange(N_TRIALS)), value="rate")
    some = columns["rate"] > 0
    path = write(tmp_path / "s.csv", **{name: each[some] for name, each in columns.items()})
    refused(path, tmp_path, "times of the same trial, and none with rate 0; expected rows for bins with rate 0 too, or nan")
    some = ((columns["time"] < 0.5) | (columns["trial"] % 2 == 0)) & ((columns["unit"] > 0) | (columns["trial"] < 9))
    columns["rate"] = columns["rate"] + 1  # smoothed rates, of trials that end earlier and a unit that is lost
    root, _ = imported(write(path, **{name: each[some] for name, each in columns.items()}), tmp_path)
    expected = np.concatenate([COUNTS[:, :125].mean(axis=0), COUNTS[::2, 125:].mean(axis=0)])
    more = np.concatenate([(COUNTS[:, :125] > 0).mean(axis=0), (COUNTS[::2, 125:] > 0).mean(axis=0)])
    np.testing.assert_allclose(root["rate"][0, :, 1:], (expected / 0.02 + 0.5 * more + 1)[:, 1:], rtol=1e-5)


def test_rows_of_conditions_in_any_order(tmp_path):
    two = np.stack([RATES, RATES + 1]) + 0.25
    names, units = np.repeat(["a", "b"], 150), {f"n{u}": np.concatenate([two[0, :, u], two[1, ::-1, u]]) for u in range(N_UNITS)}
    path = write(tmp_path / "r.csv", condition=names, time=[*CENTRES, *CENTRES[::-1]], **units)
    root, _ = imported(path, tmp_path)
    np.testing.assert_allclose(root["rate"][...], two, rtol=1e-5)
    write(path, condition=names, time=[*CENTRES, *CENTRES + 3], **units)
    refused(
        path, tmp_path, "conditions have different times .a 150 rows from -1.99 to 0.99, b 150 rows from 1.01 to 3.99.; expected the same"
    )
    write(path, condition=names, time=[*CENTRES, CENTRES[1], *CENTRES[1:]], **units)
    refused(path, tmp_path, "condition b has several rows at time -1.97; expected one row for each bin")


@pytest.mark.parametrize("names", [("trial",), ("Block", "trial"), ("condition", "trial")])
def test_rows_of_trials(tmp_path, names):
    """Counts and rates of single trials with one column for each unit; some trials are shorter."""
    trial = np.repeat(np.arange(N_TRIALS), 150)
    labels = {"trial": trial % 10, names[0]: trial // 10} if len(names) > 1 else {"trial": trial}
    time = np.tile(CENTRES, N_TRIALS)

    def wide(values, rows):
        return write(
            tmp_path / "x.csv", **{k: v[rows] for k, v in {**labels, "time": time}.items()}, **dict(zip("wxyz", values.T, strict=True))
        )

    counts = COUNTS.reshape(-1, N_UNITS)
    check(wide(counts, slice(None)), tmp_path)
    order = np.random.default_rng(0).permutation(len(time))
    root, _ = imported(wide(counts[order], order), tmp_path, "kernel=none")
    np.testing.assert_allclose(root["rate"][0], RATES, atol=1e-4)
    root, _ = imported(wide(counts + 0.25, slice(None)), tmp_path)
    expected = RATES * 0.02 + 0.25 if names[0] != "condition" else COUNTS.reshape(2, 10, 150, N_UNITS).mean(axis=1) + 0.25
    np.testing.assert_allclose(root["rate"][...], expected if names[0] == "condition" else [expected], rtol=1e-5)
    some = (time < 0.5) | (trial % 2 == 0)
    root, _ = imported(wide(counts[some], some), tmp_path, "kernel=none", "window=[-2,1]")
    np.testing.assert_allclose(root["rate"][0, 125:], COUNTS[::2, 125:].mean(axis=0) / 0.02, atol=1e-4)


def wide(path, values, **more):
    """A table of values [trial, time, unit] with a column for each unit, between further columns."""
    return write(path, **more, **{f"n{u}": values[..., u].ravel() for u in range(N_UNITS)})


TRIAL = np.repeat(np.arange(N_TRIALS), len(CENTRES))
OF_BIN = np.tile(CENTRES, N_TRIALS)


@pytest.mark.parametrize("name", ["bin_center", "timestamp", "ts", "bin", "frame", "Time (ms)", "time_from_cue", "t_rel"])
@pytest.mark.parametrize("later", [0, 100])
def test_columns_of_times_are_no_units(tmp_path, name, later):
    """Times of bins under other names than time, also on a clock of the session."""
    times = np.tile(np.arange(150), N_TRIALS) if name in ("bin", "frame") else OF_BIN * (1000 if "ms" in name else 1)
    later *= 1000 if "ms" in name else 1
    path = wide(tmp_path / "x.csv", COUNTS, trial=TRIAL, **{name: times + later * TRIAL})
    arguments = ["bin=20", "window=[-2,1]"]
    if name in ("time_from_cue", "t_rel"):
        refused(path, tmp_path, f"{name} ascends in each trial or condition, as times do.*expected variables.time={name} for", *arguments)
        arguments.append(f"variables.time={name}")
    if later:
        refused(path, tmp_path, "trials have no common times; expected times relative to each trial", *arguments)
    else:
        check(path, tmp_path, *arguments)
    order = np.arange(len(TRIAL)).reshape(N_TRIALS, -1)[:, ::-1].ravel() if name == "bin" else slice(None)
    columns = {"trial": TRIAL[order], "time": OF_BIN[order], name: (times + later * TRIAL)[order]}
    path = wide(tmp_path / "x.csv", COUNTS.reshape(-1, N_UNITS)[order], **columns)
    if name in ("time_from_cue", "t_rel"):
        refused(path, tmp_path, f"{name} ascends in each trial")
    else:
        lines = check(path, tmp_path, *arguments)
        assert f"no units: {name}" in lines[0]


def test_columns_of_trials_are_no_units(tmp_path):
    """A stimulus of each trial is a column of the trials, a number of trials is left out, and a silent unit is a unit."""
    silent = COUNTS * (np.arange(N_UNITS) != 2)
    stimulus, side = TRIAL % 2, np.where(TRIAL % 2, "left", "right")
    path = wide(tmp_path / "x.csv", silent, trial=TRIAL, time=OF_BIN, stimulus=stimulus, side=side)
    filters = ["conditions.a=stimulus == 0", "conditions.b=side == 'left'", "kernel=none"]
    root, lines = imported(path, tmp_path, *filters)
    assert "no units: stimulus, side" in lines[0] and "3 of 4 units" in lines[0]
    np.testing.assert_allclose(root["rate"][...], [silent[half::2][:, :, [0, 1, 3]].mean(axis=0) / 0.02 for half in (0, 1)], atol=1e-4)
    two, rows = np.stack([RATES, RATES + 1]) + 0.25, {"condition": np.repeat(["a", "b"], 150), "time": np.tile(CENTRES, 2)}
    root, lines = imported(wide(path, two, **rows, n_trials=np.repeat([9, 11], 150)), tmp_path)
    np.testing.assert_allclose(root["rate"][...], two, rtol=1e-5)
    assert "no units: n_trials" in lines[0]
    refused(wide(path, two, **rows, contrast=np.repeat([9.5, 0], 150)), tmp_path, "contrast is the same in all bins of a condition")
    root, _ = imported(path, tmp_path, "axes=[time,unit]")
    assert root["unit/id"].shape == (N_UNITS + 1,)
    for more in ({"bin": np.tile(np.arange(150), 2)}, {"time": rows["time"], "time_ms": 1000 * rows["time"]}):
        root, _ = imported(wide(path, two, condition=rows["condition"], **more), tmp_path, "bin=20", "window=[-2,1]")
        np.testing.assert_allclose(root["rate"][...], two, rtol=1e-5)


def test_numbers_of_bins_called_time(tmp_path):
    path = write(tmp_path / "s.csv", **renamed(tidy(RATES[None] + 0.5), value="rate") | {"time": np.repeat(np.arange(150), N_UNITS)})
    refused(path, tmp_path, "steps of 1 would be bins of 1,000 ms.*or the name bin of a column of their numbers", "bin=20")


def test_rows_that_belong_to_no_column(tmp_path):
    """Repeated times and columns that are no units are never dropped, or taken for units."""
    units = dict(zip("wxyz", COUNTS[:10].reshape(-1, N_UNITS).T, strict=True))
    time = np.tile(CENTRES, 10)
    for more, pattern in (
        ({}, "the table has several rows at time -1.99; expected one row for each bin, or a column trial or condition"),
        ({"block": np.repeat(np.arange(10), 150)}, "block is no unit; expected variables.condition=block"),
    ):
        path = write(tmp_path / "x.csv", time=time, **more, **units)
        refused(path, tmp_path, pattern, "counts=true", "bin=20")
    path = write(tmp_path / "x.csv", condition=[], time=[], n1=[])
    refused(path, tmp_path, "the table is empty; expected a row for each bin")
    path = write(tmp_path / "x.csv", time=CENTRES**3, **{name: each[:150] + 0.5 for name, each in units.items()})
    refused(path, tmp_path, "time: expected centres of bins in s, ascending in equal steps", "bin=20")


@pytest.mark.parametrize(
    ("header", "said"), [("2,0,1,3", "refused"), ("0,1,2,3", "warned"), ("1,2,4,5", "warned"), ("10,20,30,40", ""), ("a,b,c,d", "")]
)
def test_counts_without_a_header(tmp_path, header, said):
    np.savetxt(tmp_path / "c.csv", COUNTS[0] + COUNTS[1], "%d", delimiter=",", header=header, comments="")
    arguments = ["counts=true", "bin=20", "window=[-2,1]"]
    if said == "refused":
        refused(tmp_path / "c.csv", tmp_path, "the first line, 2, 0, 1, 3, is taken as the names of units", *arguments)
        return
    root, lines = imported(tmp_path / "c.csv", tmp_path, *arguments)
    np.testing.assert_allclose(root["rate"][0], (COUNTS[0] + COUNTS[1]) / 0.02, rtol=1e-5)
    assert root["unit/id"][...].tolist() == header.split(",") and ("the first line" in " ".join(lines)) == (said == "warned")


@pytest.mark.parametrize("name", ["counts", "spikes"])
def test_negative_counts(tmp_path, name):
    padded = COUNTS.copy()
    padded[3] = -1
    np.savez(tmp_path / "c.npz", **{name: padded})
    refused(tmp_path / "c.npz", tmp_path, f"{name} is -1 in condition 3, bin 0, unit 0 .600 such.*expected at least 0", "bin=20")
    root, _ = imported(_with_missing(tmp_path / "c.npz", name, padded), tmp_path, "bin=20", "window=[-2,1]", "kernel=none")
    np.testing.assert_allclose(root["rate"][0], np.delete(COUNTS, 3, axis=0).mean(axis=0) / 0.02, atol=1e-4)


def _with_missing(path, name, padded):
    np.savez(path, **{name: np.where(padded < 0, np.nan, padded)})
    return path


# Parquet


def parquet(path, **columns):
    """A Parquet file with the columns, which may be arrays of pyarrow."""
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(pyarrow.table(columns), path)
    return path


def test_missing_categories(tmp_path):
    """A category, as pandas has them, that is missing is no other category."""
    pyarrow = pytest.importorskip("pyarrow")
    stim = pyarrow.array([None if k % 4 == 3 else "ab"[k % 2] for k in range(N_TRIALS)]).dictionary_encode()
    parquet(tmp_path / "trials.parquet", start_time=EVENTS, stim=stim)
    path = write(tmp_path / "s.csv", time=TIMES, unit=LABELS)
    root, _ = imported(path, tmp_path, "conditions.b=stim == 'b'", "kernel=none", "min_trials=0")
    np.testing.assert_allclose(root["rate"][0], COUNTS[1::4].mean(axis=0) / 0.02, atol=1e-4)
    units = pyarrow.array([f"n{each}" if each != 1 else None for each in LABELS]).dictionary_encode()
    row = np.flatnonzero(LABELS == 1)[0] + 1
    refused(parquet(tmp_path / "s.parquet", time=TIMES, unit=units), tmp_path, f"unit is empty in row {row}; expected the unit")


def test_columns_of_lists(tmp_path):
    parquet(tmp_path / "trials.parquet", start_time=EVENTS, licks=[[0.5]] * N_TRIALS)
    trains = [train.tolist() for train in ([train[:20] for train in (TIMES, TIMES)])]
    pattern = r"column {} has lists; expected .*table.explode\('{}'\) of pandas makes, with a column unit"
    path = tmp_path / "s.parquet"
    refused(parquet(path, unit=[0, 1], spike_times=trains), tmp_path, pattern.format("spike_times", "spike_times"))
    refused(parquet(path, time=[1.0, 2.0], n0=trains), tmp_path, pattern.format("n0", "n0"))
    check(parquet(path, time=TIMES, unit=LABELS, waveform=[[1, 2]] * len(TIMES)), tmp_path)


@pytest.mark.parametrize("kind", ["uint8", "uint64", "int8"])
def test_whole_numbers_without_a_sign(tmp_path, kind):
    values, others = (np.arange(140)[::-1] % 7).astype(kind), np.arange(140) % 5
    path = parquet(tmp_path / "r.parquet", time=0.02 * np.arange(140), n0=values, n1=others)
    root, _ = imported(path, tmp_path, "counts=false")
    np.testing.assert_array_equal(root["rate"][0], np.column_stack([values, others]))
    np.save(tmp_path / "r.npy", np.rec.fromarrays([0.02 * np.arange(140), values, others], names="time,n0,n1"))
    assert (imported(tmp_path / "r.npy", tmp_path, "counts=false")[0]["rate"][0] == root["rate"][0]).all()


def test_durations_and_dates(tmp_path):
    path = write(tmp_path / "s.csv", time=TIMES, unit=LABELS)
    since = np.datetime64("2020-01-01", "ms") + np.rint(1e3 * EVENTS).astype("timedelta64[ms]")
    parquet(tmp_path / "trials.parquet", start_time=EVENTS, cue=np.rint(1e3 * EVENTS).astype("timedelta64[ms]"), date=since)
    check(path, tmp_path, "align=cue")
    refused(path, tmp_path, "trials.parquet: date has dates; expected numbers", "align=date")
    dates = np.datetime64("2020-01-01", "ms") + 20 * np.arange(150).astype("timedelta64[ms]")
    path = parquet(tmp_path / "r.parquet", time=dates, n0=RATES[:, 0] + 0.5, n1=RATES[:, 1])
    refused(path, tmp_path, "time has dates; expected numbers")
    path = parquet(path, time=dates - dates[0], n0=RATES[:, 0] + 0.5, n1=RATES[:, 1])
    np.testing.assert_allclose(imported(path, tmp_path)[0]["time"][...], 0.02 * np.arange(150), atol=1e-9)
