"""Cell classes: rules on columns, missing values, random draws within regions, from the import to the network of a run."""

import dataclasses

import numpy as np
import pytest
import zarr
from conftest import compose

from rlsnet.data import cell_classes, query
from rlsnet.data.import_options import options_of
from rlsnet.data.importing import import_sources
from rlsnet.data.recordings import open_recording
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.model import rng

N = 400
E, I, U = "excitatory", "inhibitory", ""  # noqa: E741
WIDTH = np.array([0.6, 0.2, np.nan, 0.5])


def recorded(path, n=N, **columns):
    """A recording of n units in two regions, whose sessions follow each other, with columns."""
    root = zarr.create_group(str(path), attributes={"format": "rlsnet-recording", "bin_ms": 20.0})
    rate = np.random.default_rng(1).uniform(1, 20, (2, 10, n)).astype("float32")
    root.create_array("rate", data=rate, chunks=(2, 10, 100), dimension_names=["condition", "time", "unit"])
    columns = {"region": np.where(np.arange(n) % 3 == 0, "A", "B"), "session": np.arange(n) // 50, **columns}
    for name, values in columns.items():
        zarr_store.write(root, f"unit/{name}", np.asarray(values), ["unit"])
    return path


def classes_of(path, *settings, n=N):
    base = ("target=recording", f"recording.path={path}", "network.n_neurons=null", "static.out_degree=0")
    return cell_classes.of_network(open_recording(path), compose(*base, *settings), n)


@pytest.mark.parametrize(
    "given, table, expected",
    [
        ({E: "width > 0.4"}, {"width": WIDTH}, [E, I, U, E]),
        ({I: "width <= 0.4"}, {"width": WIDTH}, [E, I, U, E]),
        ({E: "not width < 0.4"}, {"width": WIDTH}, [E, I, U, E]),
        ({E: "width > 0.55", I: "width < 0.4"}, {"width": WIDTH}, [E, I, U, U]),
        ({E: "width > 0.4"}, {"width": np.array(["0.6", "0.2", "N/A", "0.5"], object)}, [E, I, U, E]),
        ({I: "line in ['PV', 'Sst']"}, {"line": np.array(["Emx1", "PV", None, "Emx1"], object)}, [E, I, U, E]),
        ({E: "line != 'PV'"}, {"line": np.array(["Emx1", "PV", "", "nan"], object)}, [E, I, U, U]),
        ({E: "line == None or line != 'PV'"}, {"line": np.array(["Emx1", "PV", "", "a"], object)}, [E, I, E, E]),
        ({E: "width > 0.4 and depth > 1"}, {"width": WIDTH, "depth": np.array([np.nan, np.nan, 0, 2.0])}, [U, I, I, E]),
        ({E: "width > 0.4 or depth > 1"}, {"width": WIDTH, "depth": np.array([np.nan, np.nan, 2, 0.0])}, [E, U, E, E]),
        ({E: "tagged"}, {"tagged": np.array([True, False, False, True])}, [E, I, I, E]),
        ({E: "tagged == True"}, {"tagged": np.array([1, 0, np.nan, 1])}, [E, I, U, E]),
    ],
)
def test_rules_tell_classes_and_missing_values_are_unknown(given, table, expected):
    assert cell_classes.by_rules(given, table, 4, "", "f").tolist() == expected


def test_filters_without_missing_values_are_decided_everywhere():
    table = {"a": np.arange(6), "b": np.array(list("xyzxyz"))}
    for text in ("a > 2", "not a > 2 and b == 'x'", "b in ['x', 'y'] or a in [5]", "1 < a < 4", "b not in ['x']"):
        passed, known = query.decide_rows(text, table, 6, "rule", "f")
        assert known.all()
        np.testing.assert_array_equal(passed, query.select_rows(text, table, 6, "rule", "f"))


def test_rules_that_are_both_true_are_refused():
    with pytest.raises(UserError, match=r"inhibitory=width > 0.55: is true for unit 0 of f, as the other rule is"):
        cell_classes.by_rules({E: "width > 0.4", I: "width > 0.55"}, {"width": WIDTH}, 4, "", "f")


@pytest.mark.parametrize("fraction", [0.5, 0.8, 0.0, 1.0, 1 / 3])
def test_each_region_has_its_share_of_excitatory_neurons(fraction):
    """In each of 40 regions of different size the number is within 1 of the share, and the total is rounded."""
    region = np.repeat([f"region {i}" for i in range(40)], 1 + np.arange(40) % 7)
    chosen = cell_classes.draw(region, fraction, rng.key(3, rng.Purpose.CELL_CLASS))
    for name in np.unique(region):
        assert abs(chosen[region == name].sum() - fraction * (region == name).sum()) < 1
    assert abs(chosen.sum() - fraction * len(region)) <= 0.5


def test_drawn_classes_do_not_follow_the_order_of_units():
    """Over seeds each unit is excitatory about as often as any other, and classes are independent of the session."""
    region = np.where(np.arange(60) < 20, "A", "B")
    drawn = np.array([cell_classes.draw(region, 0.5, rng.key(seed, rng.Purpose.CELL_CLASS)) for seed in range(400)])
    assert np.all(np.abs(drawn.mean(axis=0) - 0.5) < 5 * 0.5 / 20)  # 5 standard errors
    assert abs(drawn[:, :10].sum(axis=1).var() - 10 * 0.25 * 10 / 19) < 0.35  # hypergeometric: 10 of 20 units in A


def test_without_classes_in_the_recording_they_are_drawn_within_each_region(tmp_path):
    path = recorded(tmp_path / "r.zarr")
    found = classes_of(path)
    assert found.source == "drawn at random within each region, 0.5 excitatory"
    region = open_recording(path).column("region")
    assert [int(found.excitatory[region == name].sum()) for name in "AB"] == [67, 133]
    np.testing.assert_array_equal(found.excitatory, classes_of(path).excitatory)
    assert not np.array_equal(found.excitatory, classes_of(path, "seed=2").excitatory)
    session = open_recording(path).column("session")
    shares = [found.excitatory[session == each].mean() for each in np.unique(session)]
    assert 0.25 < min(shares) <= max(shares) < 0.75  # class is not session


def test_a_column_of_classes_and_rules_at_training(tmp_path):
    width = np.random.default_rng(2).uniform(0, 1, N)
    width[:40] = np.nan
    label = np.where(width > 0.3, "Excitatory", np.where(np.isnan(width), "", "inhibitory"))
    path = recorded(tmp_path / "r.zarr", waveform_duration=width, cell_class=label)
    known = ~np.isnan(width)
    for settings, threshold, words in (
        ((), 0.3, "from the column cell_class of the recording"),
        (('recording.excitatory="waveform_duration > 0.4"',), 0.4, "from excitatory if waveform_duration > 0.4"),
    ):
        found = classes_of(path, *settings)
        np.testing.assert_array_equal(found.excitatory[known], width[known] > threshold)
        e, i = int((width > threshold).sum()), int((width[known] <= threshold).sum())
        counted = f"{words}: {e} excitatory, {i} inhibitory, 40 unknown, drawn at random within each region, 0.5 excitatory"
        assert found.source == counted and found.excitatory[:40].sum() == 20


@pytest.mark.parametrize(
    "settings, message",
    [
        (('recording.excitatory="waveform > 0.4"',), r"recording.excitatory: no waveform in the units of .*r.zarr; expected one of"),
        (("recording.excitatory=\"cell_class == 'X'\"",), r"cell_class == 'X': is true for none of the units; there, cell_class is"),
        ((), r"unit/cell_class\[0\] is .*pyramidal.*; expected excitatory, inhibitory, or nothing"),
    ],
)
def test_classes_that_cannot_be_used(tmp_path, settings, message):
    path = recorded(tmp_path / "r.zarr", cell_class=np.repeat(["pyramidal", "interneuron"], N // 2))
    with pytest.raises(UserError, match=message):
        classes_of(path, *settings)


@pytest.mark.parametrize("settings", [(), ("target=recording", "network.load=n.zarr")])
def test_rules_without_a_recording_to_apply_them_to(settings):
    with pytest.raises(UserError, match=r"recording.inhibitory=a > 1: expected null with "):
        compose(*settings, 'recording.inhibitory="a > 1"')


def test_an_import_stores_classes_and_the_columns_of_their_rules(tmp_path):
    """Of sessions with a column of widths and a text column; units left out are not counted."""
    from sessions import altered, write

    def with_width(values):
        def change(file):
            file["units/width"] = values
            file["units"].attrs["colnames"] = [*file["units"].attrs["colnames"], "width"]

        return change

    widths = [np.linspace(0.1, 0.9, 10), np.where(np.arange(12) < 3, np.nan, np.linspace(0.1, 0.9, 12))]
    sources = [
        altered(path, tmp_path / f"session{k}.nwb", with_width(width))
        for k, ((path, _), width) in enumerate(zip(write(tmp_path, units=(10, 12), trials=30), widths, strict=True))
    ]
    options = options_of({"preset": "map", "min_trials": 0, "units": None, "excitatory": "width > 0.4", "columns": ["classification"]})
    summary = import_sources(sources, tmp_path / "r.zarr", options, lambda line: None)
    recording = open_recording(tmp_path / "r.zarr")
    width, classes = recording.column("width"), recording.column("cell_class")
    unit, session = recording.column("id").astype(int), recording.column("session")
    unit = [unit[session == name] - unit.min() for name in np.unique(session)]
    assert sum(map(len, unit)) == recording.n_units >= 20
    np.testing.assert_array_equal(width, np.concatenate([of[kept] for of, kept in zip(widths, unit, strict=True)]))
    np.testing.assert_array_equal(classes, np.where(width > 0.4, E, np.where(np.isnan(width), U, I)))
    assert summary.classes == {E: int((width > 0.4).sum()), I: int((width <= 0.4).sum()), U: 3}
    assert "classification" in recording.columns()
    source = classes_of(tmp_path / "r.zarr", n=recording.n_units).source
    assert source.startswith("from excitatory if width > 0.4: ") and "3 unknown" in source
    with pytest.raises(UserError, match=r"excitatory=width > 4: is true for none of the units; there, in .*session1.nwb, width is"):
        import_sources(sources, tmp_path / "q.zarr", dataclasses.replace(options, excitatory="width > 4"), lambda line: None)
    with pytest.raises(UserError, match=r"excitatory=breadth > 4: no breadth in the units of .*session0.nwb"):
        import_sources(sources, tmp_path / "q.zarr", dataclasses.replace(options, excitatory="breadth > 4"), lambda line: None)
