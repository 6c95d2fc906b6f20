"""One network on several devices gives what it gives on one: spikes, weights, P and metrics, to rounding."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from network_on_devices import CASES

PROGRAM = Path(__file__).parents[1] / "network_on_devices.py"
EXACT = ("counts", "words", "n_undefined", "finite")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results by number of devices; 3 do not divide the 203 neurons, nor their 51 groups of 4."""
    folder = tmp_path_factory.mktemp("devices")

    def of(count: int):
        path = folder / f"{count}.npz"
        (own := folder / str(count)).mkdir()
        done = subprocess.run([sys.executable, PROGRAM, str(count), path, own], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(np.load(path))

    with ThreadPoolExecutor(2) as threads:
        return dict(zip((1, 3), threads.map(of, (1, 3)), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_results_do_not_depend_on_the_number_of_devices(results, case):
    one, three = (
        {name.split("/")[1]: values for name, values in results[count].items() if name.startswith(f"{case}/")} for count in (1, 3)
    )
    assert one["counts"].sum() > 50 and np.abs(one["w"]).max() > 1 and one["traces"].any()
    for name, values in one.items():
        assert values.shape == three[name].shape
        if name in EXACT:
            np.testing.assert_array_equal(three[name], values, name)
        else:
            np.testing.assert_allclose(three[name], values, rtol=1e-12, atol=1e-12 * max(1, np.abs(values).max()), err_msg=name)


def test_more_devices_than_there_are_is_refused(results):
    assert [int(results[count]["devices"]) for count in (1, 3)] == [1, 3]
    expected = "engine.devices=4: JAX finds 3 of platform cpu here; a run continues on any number, such as engine.devices=1."
    assert str(results[3]["refused"]) == expected
