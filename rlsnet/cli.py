"""The command line: `rlsnet VERB [key=value ...]`. Hydra composes the configuration and stops here.

JAX and Hydra are imported only when they are needed, so that help is quick.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlsnet.config import Config, UserError
from rlsnet.convert import completed, from_dict, in_quotes, plain_arguments, suggest, to_dict

if TYPE_CHECKING:
    from rlsnet.store import Run

log = logging.getLogger(__name__)

VERBS = {
    "train": "train a network; also resumes (resume=RUN) and sweeps (sweep=FOLDER)",
    "simulate": "run a network as it is drawn, without training",
    "test": "run a trained network with frozen weights (run=RUN)",
    "import": "make a recording.zarr of NWB, Phy, ALF, NumPy, MATLAB or HDF5 files (import SOURCE... OUT.zarr)",
    "plot": "draw figures of a run or a recording from what is stored (plot PATH)",
    "report": "put a run's results on one page, an HTML file (report RUN)",
    "compare": "compare runs or the jobs of a sweep, as a table and a page (compare RUNS)",
    "info": "say what is in a run, network, recording or checkpoint (info PATH)",
    "export": "write a trained network and its spikes for other tools (export RUN to=FORMAT)",
    "completion": "print what has a shell complete this command line (completion bash)",
}
PLAIN = {
    "import": "rlsnet.importers",
    "plot": "rlsnet.draw",
    "report": "rlsnet.report",
    "compare": "rlsnet.compare",
    "export": "rlsnet.export",
    "info": "rlsnet.tell",
    "completion": "rlsnet.completion",
}  # verbs without an experiment of their own: a module with Options, USAGE and main(paths, options)
EXTRAS = {"joblib": "joblib", "submitit": "slurm"}  # launchers of sweeps, and what has them installed

OVERVIEW = """rlsnet trains recurrent spiking networks to reproduce recorded neural activity.

Usage: rlsnet VERB [key=value ...]

{verbs}

Examples:
  rlsnet train config=tiny                                a few seconds, to see that it works
  rlsnet train                                            4096 neurons learn sinusoids
  rlsnet import sessions/*.nwb mine.zarr preset=map
  rlsnet train config=mouse_decision recording.path=mine.zarr
  rlsnet train resume=outputs/2026-11-21/10-00-00 train.iterations=200
  rlsnet train sweep=tune config=tiny rls.penlambda=.4,.8 two runs, each in a folder of its own in tune
  rlsnet test run=outputs/2026-11-21/10-00-00
  rlsnet plot outputs/2026-11-21/10-00-00                 also of a recording.zarr
  rlsnet report outputs/2026-11-21/10-00-00               report.html in the run folder
  rlsnet compare multirun/2026-11-21/10-00-00             the runs of a sweep, the best first
  rlsnet export outputs/2026-11-21/10-00-00 to=npz

rlsnet VERB --help lists the settings, rlsnet train --cfg job shows those of an experiment."""


def version_base() -> dict[str, Any]:
    """What Hydra 1.3 wants to be told of the version it should behave like; later ones do not."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def main() -> None:
    """Entry point. Exit status 0, or non-zero after one line that says what is wrong."""
    arguments = sys.argv[1:]
    if "RLSNET_COMPLETE" in os.environ:
        from rlsnet.completion import candidates

        print("\n".join(candidates(os.environ["RLSNET_COMPLETE"])))
        return
    try:
        sys.exit(_dispatch(arguments))
    except UserError as error:
        sys.exit(_complain(str(error)))
    except KeyboardInterrupt:
        _complain("interrupted.")
        sys.exit(130)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except MemoryError:
        sys.exit(_complain("out of memory; the memory plan in rlsnet.log says what was needed."))
    except OSError as error:
        sys.exit(_complain(f"{error.filename or 'file system'}: {error.strerror or error}."))


def _complain(message: str) -> int:
    """One line on stderr; the exit status."""
    print(f"rlsnet: error: {' '.join(message.split())}", file=sys.stderr)
    return 1


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(OVERVIEW.format(verbs="\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items())))
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        from importlib.metadata import version

        print(f"rlsnet {version('rlsnet')}")
        return 0
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise UserError(f"{verb}: no such verb; expected {', '.join(VERBS)}.{hint}")
    if "-h" in rest or "--help" in rest:
        from rlsnet.describe import configs_dir, help_text, plain_help_text

        if verb in PLAIN:
            print(plain_help_text(verb, VERBS[verb], importlib.import_module(PLAIN[verb])))
            return 0
        print(help_text(verb, VERBS[verb], configs_dir(), rest))
        return 0
    if verb in PLAIN:
        module = importlib.import_module(PLAIN[verb])
        preset = module.base(rest) if hasattr(module, "base") else None
        module.main(*plain_arguments(module.Options, verb, rest, preset))
        return 0
    return _with_hydra(verb, rest)


def _setting(arguments: list[str], key: str) -> str | None:
    """The value of the last key=value among the arguments."""
    found = [a.split("=", 1)[1] for a in arguments if a.lstrip("+").startswith(f"{key}=")]
    return found[-1].strip("'\"") if found and found[-1] not in ("null", "") else None


def _folder_overrides(verb: str, arguments: list[str]) -> list[str]:
    """Hydra's run folder, where the verb or resume names an existing one."""
    from rlsnet.store import Run

    many = bool({"-m", "--multirun"} & set(arguments)) or _setting(arguments, "sweep") is not None
    key, path = "run", _setting(arguments, "run")
    if verb == "test":
        if many:
            raise UserError(f"{verb} -m: expected one run at a time; only train and simulate sweep.")
        if path is None:
            raise UserError(f"{verb}: needs run=RUN, the folder of a run such as outputs/2026-11-21/10-00-00.")
    elif path is not None:
        raise UserError(f"run={path}: is for test, plot and report; {verb} takes hydra.run.dir=FOLDER, and train resume=RUN.")
    if verb == "train":
        key, path = "resume", _setting(arguments, "resume")
        if path == "auto":
            path = None
        if many and path is not None:
            raise UserError(f"resume={path}: expected resume=auto in a sweep, where every job has its own folder.")
    elif _setting(arguments, "resume") is not None:
        raise UserError(f"resume={_setting(arguments, 'resume')}: is for train.")
    if (sweep := _setting(arguments, "sweep")) is not None:
        return _sweep_overrides(verb, sweep, arguments)
    if path is None:
        return []
    run = Run.open(path, key)
    if verb == "train" and not run.iterations():
        raise UserError(f"resume={path}: no complete checkpoint there; start anew, or with a smaller train.checkpoint_every.")
    return [f"hydra.run.dir={in_quotes(str(run.path))}", "hydra.output_subdir=null"]


def _sweep_overrides(verb: str, folder: str, arguments: list[str]) -> list[str]:
    """What tells Hydra of sweep=FOLDER."""
    if verb not in ("train", "simulate"):
        raise UserError(f"sweep={folder}: is for train and simulate.")
    for key in ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.run.dir"):
        if (given := _setting(arguments, key)) is not None:
            raise UserError(f"{key}={given}: does not go with sweep={folder}, which names the folders itself.")
    path = Path(folder)
    if (path / "config.yaml").exists() or (path.exists() and not path.is_dir()):
        raise UserError(f"sweep={folder}: is {'a run' if path.is_dir() else 'a file'}; expected a new folder, or that of a sweep.")
    return [f"hydra.sweep.dir={in_quotes(folder)}", *([] if {"-m", "--multirun"} & set(arguments) else ["-m"])]


def quoted(argument: str) -> str:
    """An argument with the quotes that Hydra's grammar wants around an odd path, and around a unit such as µs or 1/sqrt(ms)."""
    key, _, value = argument.partition("=")
    if key in ("test.neurons", "perturb.neurons") and not re.fullmatch(r"[\w:.*-]*", value, re.ASCII) and value[:1] not in ("[", "'", '"'):
        return f"{key}={in_quotes(value)}"
    if key not in ("resume", "run", "sweep", "test.checkpoint"):
        odd = re.fullmatch(r"[-+.\d][^'\"\[\]{}$]*", value) and re.search(r"[()^]|[^ -~]", value)
        return f"{key}={','.join(map(in_quotes, value.split(',')))}" if odd else argument
    if re.fullmatch(r"[\w./:~@%+-]*", value) or value[:1] in ("'", '"'):
        return argument
    return f"{key}={in_quotes(value)}"


def _with_hydra(verb: str, arguments: list[str]) -> int:
    """Composes the configuration and runs the verb, once or for each job of a sweep."""
    extra = _folder_overrides(verb, arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us, not to a traceback
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from rlsnet import sweeps
    from rlsnet.describe import configs_dir

    overrides = [quoted(a) for a in arguments if "=" in a and not a.startswith("-")]
    others = [a for a in arguments if "=" not in a or a.startswith("-")]
    sys.argv = ["rlsnet", *overrides, *extra, *others]  # Hydra wants overrides in one piece
    task = sweeps.Task(verb)
    try:
        with sweeps.watched(_setting(arguments, "sweep")) as result:
            hydra.main(config_path=str(configs_dir()), config_name="config", **version_base())(task)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(one_line(error)) from error
    result.tell()
    if task.failed and not task.many:
        raise UserError(task.failed[0])
    return 0


def one_line(error: Exception) -> str:
    """What Hydra complains about, in our words where we know better ones."""
    text = str(error)
    if (override := getattr(error, "override", None)) is not None:
        return f"{override}: cannot be read as key=value ({text.splitlines()[0]})."
    if "Ambiguous value for argument" in text:
        return f"{text.splitlines()[0].split(chr(39))[1]}: several values make a sweep, which needs sweep=FOLDER (or -m)."
    if match := re.search(r"Could not override '([^']+)'", text):
        key = match[1].split("@")[0]
        if "No match in the defaults list" in text:
            return f"{key}: no such group.{suggest(key)}"
        return f"{key}: no such key.{suggest(key)}"
    if match := re.search(r"Could not (?:find|load) 'hydra/launcher/((joblib|submitit)\w*)'", text):
        return f"hydra/launcher: {match[1]} is not installed; expected to be there after pip install 'rlsnet[{EXTRAS[match[2]]}]'."
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, name = match[1].rpartition("/")
        options = getattr(error, "options", None)
        return (
            f"{group}={name}: no such configuration; expected {', '.join(options)}." if options else f"{match[1]}: no such configuration."
        )
    if match := re.search(r"Key '([^']+)' is not in struct\s+full_key: (\S+)", text):
        return f"{match[2]}: no such key.{suggest(match[2])}"
    return " ".join(text.split()) if text else type(error).__name__


def continued(run: Run, values: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """The settings of an existing run to go on with; raises UserError where one may not change.

    Args:
      run: with a config.yaml.
      values: nested settings, for those that a run of an older version lacks.
      asked: nested settings wanted now.
    """
    from rlsnet.experiment import resumed_values

    saved = {**completed(run.saved_config(), values), "plugins": asked["plugins"]}  # plugins may have moved
    before, now = (to_dict(from_dict(v)) for v in (saved, asked))  # plain numbers: 100 us and 0.1 ms are the same
    return resumed_values(before, now, run.path)


def run_job(verb: str, values: dict[str, Any], overrides: list[str], folder: Path) -> int:
    """One job of a verb with settings as Hydra composed them; returns the signal that stopped it, or 0."""
    from rlsnet.store import Run

    run = Run(os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else folder)
    if verb == "simulate":
        from rlsnet.experiment import run_simulation

        config = from_dict({**values, "sweep": None}, overrides)
        _restrict_to_cpu(config)
        run_simulation(config, run)
        return 0
    resumed = verb == "train" and values["resume"] is not None and (values["resume"] != "auto" or bool(run.iterations()))
    if verb != "train" or resumed:
        asked = values if values["resume"] == "auto" else _over(completed(run.saved_config(), values), values, overrides)
        values = continued(run, values, asked)
    config = from_dict({**values, "resume": None, "run": None, "sweep": None}, overrides)
    _restrict_to_cpu(config)
    if verb == "train":
        from rlsnet.experiment import run_training

        return run_training(config, run, resumed)
    from rlsnet.experiment import run_test

    run_test(config, run)
    return 0


def _restrict_to_cpu(config: Config) -> None:
    """Keeps JAX from starting GPUs where the engine is a CPU."""
    from rlsnet.engine import restrict_to_cpu

    if config.engine.platform == "cpu":
        restrict_to_cpu()


def _over(saved: dict[str, Any], composed: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The saved settings of a run with those that the command line names laid over them.

    Args:
      saved: nested settings of the run.
      composed: nested settings as Hydra composed them from the defaults and the command line.
      overrides: the command line's key=value texts.
    """
    import copy

    result = copy.deepcopy(saved)
    for text in overrides:
        key = text.lstrip("+").split("=", 1)[0].split("@")[0]
        if key.startswith("~"):
            raise UserError(f"{text}: nothing can be removed from an existing run.")
        if key == "config":
            result = copy.deepcopy(composed)
            continue
        *parents, last = key.split(".")
        source, into = composed, result
        for parent in parents:
            source, into = source[parent], into[parent]
            if not isinstance(into, dict):
                raise UserError(f"config.yaml of the run: {parent}={into}: expected a section.")
        into[last] = source[last]
    return result
