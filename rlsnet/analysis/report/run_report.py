"""Report of a run: its summary, figures, tables of scores, perturbations and provenance as one page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rlsnet.analysis import perturbation_effects, recorded_effects, run_summary, test_results, verdict
from rlsnet.analysis.plots import analysis_figures, perturbation_figures
from rlsnet.analysis.plots.run_figures import PERTURBED, figures
from rlsnet.analysis.recording_summary import named
from rlsnet.analysis.report import provenance
from rlsnet.analysis.report.html import Block, Cell, Heading, Number, Page, Paragraph, Section, Table, Tile, figure
from rlsnet.analysis.run_summary import PRIMARY_SCORES, RunSummary
from rlsnet.analysis.test_results import RunResults
from rlsnet.config.quoting import typed_command
from rlsnet.errors import UserError
from rlsnet.io import zarr_store
from rlsnet.io.formatting import UNDEFINED, byte_size, duration, number, percent
from rlsnet.learning.population import EXPLAINED, TITLE
from rlsnet.learning.scores import SCORES, typical
from rlsnet.model import network_store
from rlsnet.runs.folder import resuming

OF_THE_RECORDING = ("noise_ceiling", "reliability")  # scores that no perturbation of the model changes
CAPTIONS = {
    "learning_curve": "Correlation of the synaptic currents with their targets, mean over neurons, and firing rates in each training"
    " trial; strong lines are moving means. Validations are trials with frozen weights; their noise counts as an"
    " error, and in a test it does not.",
    "psth_examples": "Means over trials; bands are one standard error over trials. The model is smoothed as the recorded rates or, where"
    " these are not smoothed, both are averaged over the window of the scores, as currents are. r and explained variance are means over"
    " conditions.",
    "psth_heatmaps": "Each row is a neuron, in the same order in all panels. A value is a fraction of the neuron's range in the data over"
    " all conditions: 0 is its lowest value, 1 its highest.",
    "explained_variance": "Of the held-out trials or, where none were held out, of those trained on. Bars: the network. Vertical lines:"
    " the other half of the trials, a limit set by the noise of the data. Markers: simpler predictions.",
    "correlations": "The noise ceiling is the correlation that the true rate would have with these data. The condition average is the mean"
    " of the recorded rates over conditions: what a model reaches that does not tell conditions apart.",
    "rates": "Mean over the trial, for each neuron and condition.",
    "raster": "The same neurons in all panels. Recorded spikes are shown in bins of the recording. Sessions were recorded one after the"
    " other, so that a panel of data shows one trial of each.",
    "weights": "By the classes of the presynaptic and the postsynaptic neuron; excitatory E, inhibitory I.",
    **analysis_figures.CAPTIONS,
}
PERTURBATION_CAPTION = (
    "Bands are one standard error over trials; the window of the perturbation is shaded. Selectivity is the difference between the rates"
    " in two conditions."
)


def page(results: RunResults) -> str:
    """The report as an HTML document."""
    summary = run_summary.summarize(results.run)
    drawn, missing = run_figures(results)

    def titled(*names: str) -> list[Block]:
        """The figures of these names that there are, with their headings."""
        return [block for name in names for block in drawn.get(name, [])]

    sections = [
        Section("learning", "Learning", titled("learning_curve")[1:]),  # the section has its title
        Section("fit", "Fit to the target", titled("psth_examples", "psth_heatmaps")),
        Section("scores", "Scores", [*titled("explained_variance"), *_population(summary), *titled("correlations"), *_scores(summary)]),
        Section("activity", "Activity", titled("raster", "rates")),
        Section("weights", "Weights", titled("weights")),
        Section("analyses", "Analyses", titled(*analysis_figures.FIGURES)),
        Section("perturbations", "Perturbations", list(_perturbations(results, summary))),
        Section("settings", "Settings", list(provenance.settings(summary))),
        Section("recording", "Recording", list(provenance.recording(results))),
        Section("resources", "Resources and versions", list(provenance.resources(results, summary))),
        Section("reproduce", "How to reproduce", list(provenance.reproduction(results, summary))),
    ]
    where = results.run.path.resolve()
    title = where.name if not where.name[:2].isdigit() else f"{where.parent.name}/{where.name}"
    notes = [*_notes(results, summary), *_test_notes(results, summary), *missing]
    lead = f"{_lead(results)} {verdict.verdict(summary.population)}".strip()
    return Page(title, "rlsnet report", lead, sections, list(_tiles(summary)), notes).html()


def run_figures(results: RunResults) -> tuple[dict[str, list[Block]], list[str]]:
    """([heading, figure] by name, reasons why figures are missing) for the figures of a run except those of perturbations."""
    found: dict[str, list[Block]] = {}
    missing = []
    for name, panels in figures(results):
        if name.startswith(PERTURBED):
            continue  # beside its numbers in a section of its own
        if isinstance(panels, UserError):
            missing.append(f"No figure of {name.replace('_', ' ')}: {panels}")
        else:
            caption = "" if name == "correlations" and not results.has("noise_ceiling") else CAPTIONS.get(name, "")
            found[name] = [Heading(panels.title), figure(panels, caption)]
    return found, missing


def _lead(results: RunResults) -> str:
    """A sentence about the network and its target."""
    config = results.config
    size, cell_class, trained = _network(results)
    neurons = f"{size:,} {config.neuron.name.upper()} neurons" if size else f"{config.neuron.name.upper()} neurons"
    target = {"sinusoid": "sinusoidal currents", "recording": "recorded firing rates", "currents": "recorded currents"}
    name = getattr(config.target, "name", "")
    length = f"trials of {config.trial.duration / 1000:g} s"
    inputs = f"{neurons} with {config.plastic.n_inputs} plastic inputs each"
    if results.run.is_simulation():
        what = f"were simulated with their initial weights, without training, in {length}, seed {config.seed}"
        return f"{inputs} {what}. Scores compare them with {target.get(name, name)}, which they have not learned."
    first = f"{inputs} learn {target.get(name, name)} in {length}, seed {config.seed}."
    return first + (f" Trained: {trained}." if trained else "") + (f" Cell class: {cell_class}." if cell_class else "")


def _network(results: RunResults) -> tuple[int | None, str, str]:
    """(N, where the cell classes come from, what is trained if not all), of the stored network; (None, "", "") where there is none."""
    if not results.run.network.exists():
        return None, "", ""
    group = zarr_store.open_group(results.run.network, "", network_store.FORMAT)
    if "neuron/excitatory" not in group:
        return None, "", ""
    return int(group["neuron/excitatory"].shape[0]), network_store.cell_class(group), str(group.attrs.get("trained", ""))


def _tiles(summary: RunSummary) -> Iterator[Tile]:
    if (explained := summary.typical(run_summary.POPULATION)) is not None:
        ceiling = summary.population["all"].get("ceiling")
        note = f"the other half of the trials: {percent(ceiling)}" if ceiling is not None else "of the rates trained on"
        yield Tile(f"Test: {TITLE}", percent(explained), note)
    if (score := summary.primary_score) is not None:
        ceiling, value = summary.typical("noise_ceiling"), summary.typical(score)
        note = f"{summary.test_attributes.get('trials', '?')} trials, frozen weights"
        if ceiling and value is not None and score != "current_correlation":
            note = f"{100 * value / ceiling:.0f} % of the noise ceiling {ceiling:.2f}"
        yield Tile(f"Test: {SCORES[score].title}", number(value, ".2f"), f"median; {note}")
    if summary.last_correlation is not None:
        yield Tile("Training: correlation", number(summary.last_correlation), "mean of the last trial of each condition")
    if (validation := summary.best_validation) is not None:
        iteration, last = summary.validations[-1]
        yield Tile("Validation: best", percent(validation, 1), f"{TITLE}; {percent(last, 1)} at iteration {iteration}")
    if summary.metrics:
        done, planned, line = len(summary.metrics), summary.planned_iterations, summary.metrics[-1]
        yield Tile("Iterations", f"{done:,}", f"of {planned:,}")
        by_class = f"excitatory {number(line['rate_exc_hz'], '.2f')}, inhibitory {number(line['rate_inh_hz'], '.2f')}"
        yield Tile("Firing rate in training", f"{number(line['rate_hz'], '.2f')} Hz", by_class)
        total = sum(each["seconds"] for each in summary.metrics)
        yield Tile("Time per iteration", f"{number(summary.seconds_per_iteration, '.3g')} s", f"{duration(total)} in total")
    if summary.peak_memory is not None:
        yield Tile("Peak memory", byte_size(summary.peak_memory), "of the process")


def _notes(results: RunResults, summary: RunSummary) -> Iterator[str]:
    """Limits of the data and of training that a reader should know."""
    path, group = test_results.source(results)
    done, planned = len(summary.metrics), summary.planned_iterations
    if group is not None and "synthetic" in str(group.attrs.get("source", "")).lower():
        yield f"The targets are synthetic, not a recording: {group.attrs['source']}."
    if path is not None and group is None:
        yield f"The recording {path} was not found, or is another one now; this report has only what the run itself stores of it."
    if summary.metrics and done < planned and not summary.ended_early:
        yield f"Training is not done: {done} of {planned} iterations. {resuming(results.run.path)} continues it."
    if not summary.metrics and not summary.scores:
        yield "Nothing has been trained yet."
    if summary.metrics and summary.metrics[-1]["correlation"] is None:
        yield "The correlation of the last iteration is undefined for all neurons."
    elif summary.metrics and (undefined := summary.metrics[-1]["n_undefined"]):
        yield f"The correlation of {undefined:,} neurons is undefined (no target, or a constant signal); means are over the others."
    if summary.ended_early:
        stop_when = results.config.train.stop_when
        yield f"Training ended early: the score of validation did not rise for {stop_when} iterations (train.stop_when)."
    if not results.config.rls.apply:
        yield "rls.apply=false: nothing was learned, updates were only timed."


def _test_notes(results: RunResults, summary: RunSummary) -> Iterator[str]:
    """Limits of the test that a reader should know."""
    if results.test is None:
        yield f"Not tested yet: PSTHs, scores and spikes come with {typed_command('test', results.run.path)}."
        return
    yield from verdict.warnings(summary.population)
    if (other := summary.test_attributes.get("other_recording")) is not None:
        yield f"The test is compared with {other}, which is not the recording that the run was trained on."
    tested, done = int(summary.test_attributes.get("iteration", 0)), results.run.iterations()
    if done and tested != done[-1]:
        yield f"The test used the weights of iteration {tested}; the last checkpoint is from iteration {done[-1]}."
    n, stored = summary.test_attributes.get("n_neurons"), len(results.neurons)
    if isinstance(n, int) and stored < n:
        yield f"The test has {stored:,} of {n:,} neurons (test.neurons); scores are those of these neurons."
    bad = [name for name in ("psth", "current_mean") if name in results.test and not np.isfinite(results.read(name, 0)).all()]
    if bad:
        yield f"The test has numbers that are not finite in {', '.join(bad)}."
    if (score := summary.primary_score) is not None and score in results.test:
        values = results.read(score)
        if missing := int(np.isnan(values).sum()):
            title = SCORES[score].title
            yield f"{title.capitalize()}: undefined for {missing:,} of {values.size:,} neurons and conditions; means are over the others."


def _population(summary: RunSummary) -> Iterator[Block]:
    """Table of the population explained variance of the network, of the other half of the trials and of baselines."""
    if not summary.population.get("all"):
        return
    names, groups = verdict.population_rows(summary.population)
    rows: list[list[Cell]] = [
        [label, *(Number(UNDEFINED if value is None else percent(value), value) for value in values)] for label, values in groups
    ]
    yield Table(TITLE.capitalize(), ("", *(EXPLAINED[name] for name in names)), rows)


def _defined_scores(statistics: Mapping[str, Any], without: tuple[str, ...]) -> list[str]:
    """The scores that are defined for a group of neurons, those that rank runs first."""
    names = [*PRIMARY_SCORES, *(name for name in SCORES if name not in PRIMARY_SCORES)]
    return [name for name in names if name not in without and typical(statistics, name) is not None]


def _scores(summary: RunSummary) -> Iterator[Block]:
    """Tables of scores: of all neurons, by class, by condition and by region."""
    everything = summary.scores.get("all", {})
    names = _defined_scores(everything, ("reliability",))  # the noise ceiling contains it
    if not names:
        return
    groups = {"all trained neurons" if "held_out" in summary.scores else "all neurons": everything}
    groups |= {{"exc": "excitatory", "inh": "inhibitory"}.get(k, k): v for k, v in summary.scores.get("by_class", {}).items()}
    conditions = summary.scores.get("by_condition", {})
    groups |= {name: group for name, group in conditions.items() if group} if len(conditions) > 1 else {}
    groups |= summary.scores.get("held_out", {})
    if "held_out" in summary.scores:
        yield Paragraph(
            "Scores of what was not trained have rows of their own; no other row contains them. Figures of scores show what was trained.",
            "note",
        )
    yield _score_table("Median over neurons (rate error: mean), by class and condition", "", names, groups)
    if regions := summary.scores.get("by_region", {}):
        by_size = sorted(regions.items(), key=lambda item: -((item[1].get(names[0]) or {}).get("n") or 0))
        yield Heading("By region")
        title = "Median over neurons (rate error: mean) by region; the mark on a bar is the noise ceiling"
        yield _score_table(title, "region", names, {named(name): group for name, group in by_size})


def _score_table(title: str, corner: str, names: list[str], groups: Mapping[str, Any]) -> Table:
    """A row for each group of neurons, a column for each score; the first score has bars."""
    rows: list[list[Cell]] = [
        [
            label,
            _count((group.get(names[0]) or {}).get("n")),
            *(_score(group, name, bar=name == names[0]) for name in names),
        ]
        for label, group in groups.items()
    ]
    return Table(title, (corner, "neurons", *(SCORES[name].label for name in names)), rows)


def _score(group: Mapping[str, Any], name: str, bar: bool = False) -> Number:
    value = typical(group, name)
    text = number(value, "+.2f" if name == "rate_error" else ".3f")
    ceiling = None if name == "current_correlation" else typical(group, "noise_ceiling")
    return Number(text, value, value, ceiling) if bar else Number(text, value)


def _count(value: Any) -> Number:
    return Number(f"{value:,}", value) if isinstance(value, int) else Number(UNDEFINED)


def _perturbations(results: RunResults, summary: RunSummary) -> Iterator[Block]:
    """For each perturbed test: the perturbation, its effect on rates, and the scores with and without it."""
    for label in results.run.perturbed_results():
        group = perturbation_figures.open_perturbed(results, label)
        yield Heading(label)
        try:
            effect, drawn = perturbation_figures.effect_of(results, group), perturbation_figures.perturbed(label, results)
        except UserError as error:
            yield Paragraph(f"No figure: {error}", "note")
        else:
            yield Paragraph(f"{drawn.title}.")
            assert results.test is not None
            if differ := perturbation_effects.differences(results.test, group):
                yield Paragraph(f"The perturbed test has {'; '.join(differ)}.", "note")
            yield figure(drawn, PERTURBATION_CAPTION)
            yield _rates_table(effect)
            if (recorded := recorded_effects.recorded_effect(results.test, group)) is not None:
                yield from _recorded_effect(recorded)
            if effect.cue and len(effect.conditions) > 1:
                yield _resemblance_table(effect)
        with_ = run_summary.stored_scores(group).get("all", {})
        without = summary.scores.get("all", {})
        if names := _defined_scores(with_, OF_THE_RECORDING):
            rows: list[list[Cell]] = [[SCORES[name].label, _score(without, name), _score(with_, name)] for name in names]
            yield Table("Median over neurons (rate error: mean), over the whole trial", ("", "without", "with"), rows)


def _recorded_effect(found: recorded_effects.RecordedEffect) -> Iterator[Block]:
    specs, rows = recorded_effects.SPECS, list[list[Cell]]()
    for name, count, values in found.rows():
        rows.append([name, _count(count), *(Number(number(value, spec), value) for value, spec in zip(values, specs, strict=True))])
    yield Table(f"{recorded_effects.TITLE}: {', '.join(found.names)}", recorded_effects.HEAD, rows)
    yield Paragraph(recorded_effects.NOTE, "note")


def _resemblance_table(effect: perturbation_effects.PerturbationEffect) -> Table:
    shares = perturbation_effects.resemblance(effect.psth_perturbed, effect.psth_control)
    rows: list[list[Cell]] = [
        [name, *(Number(f"{share:.2f}", float(share)) for share in of_one)] for name, of_one in zip(effect.conditions, shares, strict=True)
    ]
    title = "What the activity with this cue resembles: shares of the activity in the conditions with their own cues, by least squares"
    return Table(title, ("trials of", *(f"like {name}" for name in effect.conditions)), rows)


def _rates_table(effect: perturbation_effects.PerturbationEffect) -> Table:
    rows: list[list[Cell]] = []
    for name, members in effect.groups():
        row: list[Cell] = [name, _count(int(members.sum()))]
        for period, _ in effect.shown_periods:
            control, perturbed = effect.rate(members, period)
            row.append(Number(f"{control:.2f} → {perturbed:.2f}", perturbed) if np.isfinite(control) else Number(UNDEFINED))
        rows.append(row)
    where = "the windows" if len(effect.windows) > 1 else "the window"
    head = ("", "neurons", *(f"{name} {where}" for _, name in effect.shown_periods))
    return Table("Mean rates in Hz, without → with the perturbation", head, rows)
