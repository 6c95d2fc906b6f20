"""Results of simulate and test as lines of the log: rates, correlations, scores, and the effect of a perturbation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zarr

from rlsnet.analysis import perturbation_effects, recorded_effects, score_tables, verdict
from rlsnet.config.quoting import typed_command
from rlsnet.runs.folder import Run
from rlsnet.workflows import test_store

log = logging.getLogger(__name__)


def log_results(run: Run, results: Sequence[Path]) -> None:
    """Logs the results of trials with frozen weights.

    Args:
      run: the run.
      results: stored results of it: its test.zarr, or those of perturbed trials, which are compared with its test.zarr.
    """
    for path in results:
        stored = test_store.open_test(run, path)
        if path == run.test:
            _log_iteration(run, stored)
            _log_test(stored)
        else:
            _log_perturbed(run, stored)
    log.info("Next: %s", typed_command("report", run.path))


def _log_iteration(run: Run, results: zarr.Group) -> None:
    """Says which weights were tested, where they are not those of the last iteration."""
    done, tested = run.iterations(), int(results.attrs.get("iteration", 0))
    if done and tested != done[-1]:
        best = "the best in validation, " if any(tested == number for number in run.bests()) else ""
        log.info(
            "The weights are those of iteration %d, %sof %d iterations; test.checkpoint=last tests the last ones.", tested, best, done[-1]
        )


def _log_test(results: zarr.Group) -> None:
    """Logs the verdict, rates, correlations and scores."""
    population = results.attrs.get("scores", {}).get("population", {})
    if sentences := verdict.verdict(population):
        log.info("%s", sentences)
        for warning in verdict.warnings(population):
            log.warning("%s", warning)
        log.info("%s", verdict.population_table(population))
    excitatory = results["excitatory"][...]
    rate, correlation = results["rate"][...], results["current_correlation"][...]
    if len(excitatory) < (n := int(results.attrs.get("n_neurons", 0))):
        log.info("For %s of %s neurons (test.neurons):", f"{len(excitatory):,}", f"{n:,}")
    log.info("Rates %s.", score_tables.rate_words(excitatory, rate))
    if populations := results.attrs.get("populations"):
        own = np.repeat(np.arange(len(populations)), list(populations.values()))[results["neuron"][...]]
        words = (f"{name} {rate[:, own == number].mean():.2f}" for number, name in enumerate(populations) if np.any(own == number))
        log.info("Rates by population, Hz: %s.", ", ".join(words))
    if results.attrs.get("cell_class"):
        log.info("Cell class: %s.", results.attrs["cell_class"])
    log.info("Current correlation: %s.", score_tables.mean_words(correlation))
    if "rate_correlation" in results:
        log.info(
            "Rate correlation: %s%s.",
            score_tables.mean_words(score_tables.trained_only(results, "rate_correlation")),
            _compared_trials(results),
        )
        log.info("%s", score_tables.score_table(results.attrs["scores"]))


def _log_perturbed(run: Run, perturbed: zarr.Group) -> None:
    """Logs the perturbation, and rates and scores with and without it."""
    log.info("Perturbed: %s.", perturbation_effects.description(perturbed))
    if not run.test.exists():
        log.warning("There is no %s to compare with; %s makes one.", run.test, typed_command("test", run.path))
        return
    test = test_store.open_test(run, run.test)
    if differ := perturbation_effects.differences(test, perturbed):
        log.warning(
            "The perturbed test has %s. So differences below are not those of the perturbation alone; run rlsnet test again with the same"
            " settings.",
            "; ".join(differ),
        )
    effect = perturbation_effects.PerturbationEffect.from_tests(test, perturbed)
    log.info("%s", perturbation_effects.rates_table(effect))
    if effect.cue and len(effect.conditions) > 1:
        log.info("%s", perturbation_effects.resemblance_table(effect))
    if (recorded := recorded_effects.recorded_effect(test, perturbed)) is not None:
        log.info("%s", recorded_effects.table(recorded))
    log.info("%s", perturbation_effects.scores_table(test, perturbed))


def _compared_trials(results: zarr.Group) -> str:
    """The trials that were compared, in words."""
    trained = results.attrs["trained_on"]
    if trained == "all":
        advice = "; there is no held-out score, for which training needs recording.half=odd" if "reliability" in results else ""
        return f" on the trials that were trained on{advice}"
    heldout = score_tables.mean_words(score_tables.trained_only(results, "heldout_correlation"))
    return f" on the {trained} trials, which were trained on; {heldout} on the held-out trials"
