"""What a report of a run says, section by section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rlsnet import effects, facts, memory, network, perturb_plots, plots, provenance, zarrio
from rlsnet.config import UserError
from rlsnet.facts import SCORES, Facts, number
from rlsnet.page import Cell, Raw, Section, bar, document, figure, html, joined, paragraph, table, tiles, warnings
from rlsnet.resources import duration
from rlsnet.results import Results

OF_THE_DATA = ("noise_ceiling", "reliability")  # scores that no perturbation changes
CAPTIONS = {
    "learning_curve": "Correlation of windowed currents with their targets in each training trial, mean over neurons; and firing rates.",
    "psth_examples": "Red: the model, mean over test trials, averaged over the window of the scores.",
    "psth_heatmaps": "A row is a neuron, in the same order in all panels.",
    "correlations": "Over neurons and conditions. The noise ceiling is what the underlying rate itself would reach.",
    "rates": "Mean over the trial, of each neuron and condition.",
    "raster": "Some neurons of each class, in the first test trial.",
    "weights": "By the classes of the presynaptic and the postsynaptic neuron.",
}


def page(results: Results) -> str:
    """The whole report as HTML."""
    found = facts.of(results.run)
    drawn, missing = {}, []
    for name, drawing in plots.drawings(results):
        if name.startswith(plots.PERTURBED):
            continue  # beside their numbers, below
        if isinstance(drawing, UserError):
            missing.append(f"No figure of {name.replace('_', ' ')}: {drawing}")
        else:
            drawn[name] = drawing
    notes = [*_notes(results, found), *missing]
    figures = {name: figure(drawing, name, CAPTIONS.get(name, "")) for name, drawing in drawn.items()}
    titled = {name: Raw(f"<h3>{html(drawing.title)}</h3>{figures[name]}") for name, drawing in drawn.items()}

    def some(*names: str) -> list[Raw]:
        return [titled[name] for name in names if name in titled]

    sections = [
        Section("learning", "Learning", figures.get("learning_curve", Raw(""))),
        Section("fit", "Fit to the target", joined(some("psth_examples", "psth_heatmaps"))),
        Section("scores", "Scores", joined([*some("correlations"), *_scores(found)])),
        Section("activity", "Activity", joined(some("raster", "rates"))),
        Section("weights", "Weights", joined(some("weights"))),
        Section("perturbations", "Perturbations", joined(_perturbations(results, found))),
        Section("settings", "Settings", joined(provenance.settings(found))),
        Section("recording", "Recording", joined(provenance.recording(results))),
        Section("resources", "Resources and versions", joined(provenance.resources(results, found))),
        Section("reproduce", "How to reproduce", joined(provenance.again(results, found))),
    ]
    where = results.run.path.resolve()
    title = where.name if not where.name[:2].isdigit() else f"{where.parent.name}/{where.name}"
    return document(title, "rlsnet report", _lead(results, found), [tiles(_tiles(results, found)), warnings(notes)], sections)


def _lead(results: Results, found: Facts) -> str:
    config = results.config
    size = _size(results)
    neurons = f"{size:,} {config.neuron.name.upper()} neurons" if size else f"{config.neuron.name.upper()} neurons"
    target = {"sinusoid": "sinusoidal currents", "recording": "recorded firing rates", "currents": "recorded currents"}
    name = getattr(config.target, "name", "")
    length = f"trials of {config.trial.duration / 1000:g} s"
    return f"{neurons} with {config.plastic.n_inputs} plastic inputs each learn {target.get(name, name)} in {length}, seed {config.seed}."


def _size(results: Results) -> int | None:
    """N, from the stored network."""
    if not results.run.network.exists():
        return None
    group = zarrio.open_group(results.run.network, "run", network.FORMAT)
    return int(group["neuron/excitatory"].shape[0]) if "neuron/excitatory" in group else None


def _tiles(results: Results, found: Facts) -> Iterator[tuple[str, str, str]]:
    if (main := found.main) is not None:
        ceiling, value = found.typical("noise_ceiling"), found.typical(main)
        share = f"{100 * value / ceiling:.0f} % of the noise ceiling {ceiling:.2f}" if ceiling and value is not None else ""
        more = share if share and main != "current_correlation" else f"{found.tested.get('trials', '?')} trials, frozen weights"
        yield f"Test: {SCORES[main]}", number(value, ".2f"), f"median; {more}"
    if found.last is not None:
        yield "Training: correlation", number(found.last, ".2f"), f"last; best {number(found.best, '.2f')}"
    if found.metrics:
        yield "Iterations", f"{len(found.metrics):,}", "all" if len(found.metrics) >= found.total else f"of {found.total:,}"
        line = found.metrics[-1]
        yield (
            "Firing rate",
            f"{number(line['rate_hz'], '.1f')} Hz",
            f"E {number(line['rate_exc_hz'], '.1f')}, I {number(line['rate_inh_hz'], '.1f')}",
        )
        total = sum(each["seconds"] for each in found.metrics)
        yield "An iteration", f"{number(found.seconds, '.3g')} s", f"{duration(total)} in all"
    if found.peak_memory is not None:
        yield "Peak memory", memory.in_words(int(found.peak_memory)), "of the process"


def _notes(results: Results, found: Facts) -> Iterator[str]:
    """What a reader should know before believing the rest."""
    path, group = provenance.source(results)
    if group is not None and "synthetic" in str(group.attrs.get("source", "")).lower():
        yield f"The targets are synthetic, not a recording: {group.attrs['source']}."
    if path is not None and group is None:
        yield f"The recording {path} is not there any more; what is said of it here is what the run kept."
    if found.metrics and len(found.metrics) < found.total:
        left = f"rlsnet train resume={results.run.path}"
        yield f"Training is not done: {len(found.metrics)} of {found.total} iterations. {left} goes on."
    if not found.metrics and not found.scores:
        yield "Nothing has been trained yet."
    if found.metrics and found.metrics[-1]["correlation"] is None:
        yield "The correlation of the last iteration is undefined for all neurons."
    elif found.metrics and (undefined := found.metrics[-1]["n_undefined"]):
        yield f"The correlation of {undefined:,} neurons is undefined (no target, or nothing that varies); means are over the others."
    if found.last is not None and found.best is not None and found.best - found.last > 0.05:
        words = f"The last iteration ({found.last:.2f}) is worse than the best ({found.best:.2f})"
        yield f"{words}; test.checkpoint=best tests the best weights."
    if not results.config.rls.apply:
        yield "rls.apply=false: nothing was learned, updates were only timed."
    yield from _notes_on_the_test(results, found)


def _notes_on_the_test(results: Results, found: Facts) -> Iterator[str]:
    if results.test is None:
        yield f"Not tested yet: PSTHs, scores and spikes come with rlsnet test run={results.run.path}."
        return
    tested, done = int(found.tested.get("iteration", 0)), results.run.iterations()
    if done and tested != done[-1]:
        yield f"The test is of the weights of iteration {tested}; the last checkpoint is of iteration {done[-1]}."
    n, stored = found.tested.get("n_neurons"), len(results.neurons)
    if isinstance(n, int) and stored < n:
        yield f"The test holds {stored:,} of {n:,} neurons (test.neurons); scores are of these."
    bad = [name for name in ("psth", "current_mean") if name in results.test and not np.isfinite(results.read(name, 0)).all()]
    if bad:
        yield f"The test holds numbers that are not finite in {', '.join(bad)}."
    if (main := found.main) is not None and main in results.test:
        values = results.read(main)
        if missing := int(np.isnan(values).sum()):
            of = f"{missing:,} of {values.size:,} neurons and conditions"
            yield f"{SCORES[main].capitalize()}: undefined for {of}; means are over the others."


def _scores(found: Facts) -> Iterator[Raw]:
    """Tables of scores: of all, by class, condition and region."""
    everything = found.scores.get("all", {})
    names = [name for name in SCORES if facts.typical(everything, name) is not None and name != "reliability"]  # it is in the ceiling
    if not names:
        return
    groups = {"all neurons": everything}
    groups |= {{"exc": "excitatory", "inh": "inhibitory"}.get(k, k): v for k, v in found.scores.get("by_class", {}).items()}
    conditions = found.scores.get("by_condition", {})
    groups |= conditions if len(conditions) > 1 else {}
    yield _score_table("Medians over neurons (error: mean), of all, by class and by condition", "", names, groups)
    if regions := found.scores.get("by_region", {}):
        by_size = sorted(regions.items(), key=lambda item: -(_leaf(item[1], names[0]).get("n") or 0))
        yield Raw("<h3>By region</h3>")
        title = "Medians over neurons (error: mean) by region; the mark on a bar is the noise ceiling"
        yield _score_table(title, "region", names, dict(by_size))


def _leaf(scores: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return scores.get(name) or {}


def _score_table(title: str, what: str, names: list[str], groups: Mapping[str, Any]) -> Raw:
    main = next((name for name in facts.MAIN if name in names), names[0])
    rows = []
    for group, scores in groups.items():
        row: list[Any] = [group or "(none)"]
        row.append(_count(_leaf(scores, main).get("n")))
        for name in names:
            value, ceiling = (facts.typical(scores, each) for each in (name, "noise_ceiling"))
            more = bar(value, None if main == "current_correlation" else ceiling) if name == main else Raw("")
            row.append(Cell(number(value, "+.2f" if name == "rate_error" else ".3f"), value, more))
        rows.append(row)
    return table(title, (what, "neurons", *(SCORES[name] for name in names)), rows)


def _count(value: Any) -> Cell:
    return Cell(f"{value:,}" if isinstance(value, int) else "–", value if isinstance(value, int) else None)


def _perturbations(results: Results, found: Facts) -> Iterator[Raw]:
    """Each perturbed test: what was done, its effect, and its scores."""
    for label in results.run.perturbed_results():
        group = perturb_plots.opened(results, label)
        yield Raw(f"<h3>{html(label)}</h3>")
        try:
            effect, drawing = perturb_plots.effect_of(results, group), perturb_plots.perturbed(label, results)
        except UserError as error:
            yield paragraph(f"No figure: {error}", "note")
        else:
            yield paragraph(f"{drawing.title}.")
            assert results.test is not None
            if differ := effects.differences(results.test, group):
                yield paragraph(f"Not of the same trials as the unperturbed test: {', '.join(differ)}.", "note")
            yield figure(drawing, f"perturbed-{_word(label)}", "Means over conditions; the window is shaded.")
            yield _effect(effect)
        scores = facts.table(group).get("all", {})
        names = [name for name in SCORES if facts.typical(scores, name) is not None and name not in OF_THE_DATA]
        rows = [[SCORES[name], *(Cell(number(v), v) for v in (found.typical(name), facts.typical(scores, name)))] for name in names]
        yield table("Medians over neurons (error: mean), of the whole learned time", ("", "without", "with"), rows) if rows else Raw("")


def _effect(effect: effects.Effect) -> Raw:
    rows = []
    for name, members in effect.groups():
        row: list[Any] = [name, _count(int(members.sum()))]
        for period in range(len(effects.PERIODS)):
            without, with_ = effect.rate(members, period)
            row.append(Cell(f"{without:.2f} \u2192 {with_:.2f}" if np.isfinite(without) else "–", with_ if np.isfinite(with_) else None))
        rows.append(row)
    return table("Mean rates in Hz, without → with the perturbation", ("", "neurons", *(f"{p} it" for p in effects.PERIODS)), rows)


def _word(text: str) -> str:
    """A text as part of an id."""
    return "".join(c if c.isalnum() and c.isascii() else f"-{ord(c):x}" for c in text)
