"""Schema: every shipped configuration composes and runs; a message about a mistake has the key and the allowed values."""

import copy
import dataclasses
import os
import typing

import numpy as np
import pytest
import yaml
from conftest import compose

from rlsnet.config import compose as composition
from rlsnet.config import differences, schema
from rlsnet.config.compose import configs_dir
from rlsnet.config.load import flat, from_dict, to_dict
from rlsnet.config.settings import choices_of, default_variants, variants
from rlsnet.errors import UserError
from rlsnet.model.neuron_selection import select_neurons
from rlsnet.runs import memory_plan
from rlsnet.runs.folder import Run
from rlsnet.workflows import training
from rlsnet.workflows.resume import check_unchanged, resumed_config

SHIPPED = sorted(p.stem for p in (configs_dir() / "config").glob("*.yaml"))


def test_the_promised_configurations_are_shipped():
    assert {"sinusoid", "mouse_decision", "million", "million_small_memory", "tiny"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("stimulus", ["ou", "none"])
def test_every_shipped_configuration_runs_for_a_moment(tmp_path, name, stimulus):
    """One iteration of each, its network made small, its trial as it is."""
    overrides = [
        f"config={name}",
        f"stimulus={stimulus}",
        "network.n_neurons=300",
        "plastic.n_inputs=10",
        "train.iterations=1",
        "progress=off",
    ]
    static = compose(f"config={name}").static
    if isinstance(static, schema.PopulationsConfig):
        overrides += ["static.scale=0.005", "trial.stim_off=10", "trial.duration=20"]
    elif static.out_degree:
        overrides.append("static.out_degree=40")
    assert training.run_training(compose(*overrides), Run(tmp_path), resumed=False) == 0
    assert Run(tmp_path).iterations() == [1]


def test_published_parameters():
    """algorithm's table of parameter sets."""
    sinusoid, mouse, million = (compose(f"config={name}") for name in ("sinusoid", "mouse_decision_published", "million"))
    for config in (sinusoid, mouse, million):
        assert (config.trial.dt, config.neuron.tau_m, config.synapse.tau_exc, config.synapse.tau_inh, config.synapse.tau_plas) == (
            0.1,
            10,
            3,
            3,
            150,
        )
        assert (config.trial.stim_on, config.trial.stim_off, config.plastic.group_size, config.rls.gain) == (800, 1000, 1, "textbook")
    assert compose() == sinusoid
    assert (sinusoid.network.n_neurons, sinusoid.static.out_degree, sinusoid.plastic.n_inputs) == (4096, 410, 58)
    assert (sinusoid.trial.n_steps, sinusoid.trial.n_points, sinusoid.rls.penlambda, sinusoid.rls.penmu) == (20000, 100, 0.8, 0.01)
    assert (mouse.static.out_degree, mouse.plastic.n_inputs, mouse.noise.sigma, mouse.target.name) == (0, 128, 0.65, "recording")
    assert (mouse.trial.n_steps, mouse.trial.n_points, mouse.rls.penlambda, mouse.rls.penmu) == (40000, 150, 0.04, 0)
    assert (mouse.feedforward.name, mouse.rls.regressors, mouse.rls.every, mouse.rls.correct_current) == ("none", "spikes", 1, False)
    assert mouse.train.trials_per_update == 1 and not mouse.target.euler_correction
    assert (million.network.n_neurons, million.static.out_degree, million.plastic.n_inputs) == (1_000_000, 1000, 100)
    small_memory = dataclasses.replace(million, rls=dataclasses.replace(million.rls, storage="packed", precision="int16"))
    assert compose("config=million_small_memory") == small_memory


def test_round_trip():
    config = compose("config=mouse_decision", "seed=123456789012")
    assert from_dict(to_dict(config)) == config
    assert hash(config) == hash(from_dict(to_dict(config)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trial.dt=0", "trial.dt=0.0: expected a value above 0 ms"),
        ("trial.dt=fast", "trial.dt=fast: expected a number in ms"),
        ("trial.dt=inf", "trial.dt=inf: expected a finite number in ms"),
        ("trial.learn_every=10.05", "trial.learn_every=10.05 ms: expected a multiple of trial.dt=0.1 ms, such as 10"),
        ("trial.stim_on=1200", "trial.stim_on=1200 ms: expected a time that is not after trial.stim_off=1000 ms"),
        ("trial.duration=1005", "trial.duration=1005 ms: expected a multiple of trial.learn_every=10 ms, such as 1000"),
        ("neuron.refractory=0.25", "neuron.refractory=0.25 ms: expected a multiple of trial.dt"),
        ("neuron.reset=1.5", "neuron.reset=1.5: expected a value below neuron.threshold=1"),
        ("synapse.tau_exc=0.05", "synapse.tau_exc=0.05 ms: expected at least twice trial.dt=0.1 ms"),
        ("plastic.n_inputs=7", "plastic.n_inputs=7: expected an even number"),
        ("static.ei=0.5", "static.ei=0.5: expected at most 0"),
        ("rls.gain=tsn", "rls.gain=tsn: expected textbook or tsn_head"),
        ("train.iterations=2.5", "train.iterations=2.5: expected a whole number"),
        ("train.iterations=true", "train.iterations=True: expected a whole number"),
        ("train.save_best=2", "train.save_best=2: expected true or false"),
        ("test.checkpoint=newest", "test.checkpoint=newest: expected auto, last, best, an iteration such as 100, or a path"),
        (
            "test.neurons=many",
            "test.neurons=many: expected null, indices such as [0,5,17], a range such as 0:100, exc, inh, region:NAME, or a filter",
        ),
        ("test.neurons=[]", "test.neurons=[]: expected null, indices"),
        ("test.neurons=[0.5]", "test.neurons=0.5: expected null, indices"),
        ("test.neurons=-1", "test.neurons=-1: expected null, indices"),
        ("rls.gain=[1,2]", "rls.gain=[1, 2]: expected a text"),
        ("engine.devices=0", "engine.devices=0: expected at least 1"),
        ("+train.iteratons=3", "train.iteratons: no such key. Did you mean train.iterations?"),
        ("+learn_evry=3", "learn_evry: no such key. Did you mean trial.learn_every?"),
        ("stimulus.name=noise", "stimulus.name=noise: expected ou, none or given"),
        ("trial=3", "trial=3: expected a section with keys dt, stim_on"),
        ("seed=-1", "seed=-1: expected at least 0"),
        ("neuron.tau_m=[10]", "neuron.tau_m=[10]: expected one value, or two: of excitatory and of inhibitory neurons"),
        ("neuron.tau_m=[10,-1]", "neuron.tau_m[1]=-1.0: expected a value above 0 ms"),
        ("plugins=mine", "plugins=mine: expected a list"),
        (
            "noise.sigma=1e308",
            "noise.sigma=1e+308: expected 0 or an amount from 1.2e-38 to 1.8e+19 threshold, which engine.precision=float32",
        ),
        ("network.bias=[0.1,-1e39]", "network.bias=-1e+39: expected 0 or an amount"),
        ("rls.penlambda=1e-45", "rls.penlambda=1e-45: expected 0 or an amount"),
        ("trial.dt=1e-9", "trial.dt=1e-09 ms: makes 2e+12 steps of a trial; expected at most 2,147,483,647"),
        ("trial.dt=1e-300", "trial.dt=1e-300: expected 0 or an amount"),
        ("trial.learn_every=1e-9", "trial.learn_every=1e-09 ms: expected a multiple of trial.dt=0.1 ms, such as 0.1"),
        ("trial.learn_every=1e12", "trial.duration=1000 ms: expected a multiple of trial.learn_every=1e+12 ms"),
        ("train.iterations=10000000000", "train.iterations=10000000000: expected at most 2147483647"),
        ("static=null", "static=null: expected a name; there are edges"),
        ("neuron=1", "neuron=1: expected a name; there are glif1"),
        ("perturb=true", "perturb=true: expected a name"),
        ("config=3", "config=3: expected a name; there are"),
        ("target=1e3", "target=1e3: expected a name"),
        ("neuron@x=1", "neuron=1: expected a name"),
        ("=3", "=3: expected key=value"),
        ("@=1", "@=1: expected key=value"),
    ],
)
def test_mistakes_are_named(override, message):
    with pytest.raises(UserError) as caught:
        compose(override)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_that_float64_can_use():
    assert compose("noise.sigma=1e39", "engine.precision=float64").noise.sigma == 1e39
    with pytest.raises(UserError, match="which engine.precision=float64 can use"):
        compose("noise.sigma=1e308", "engine.precision=float64")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("trial.dt=100 us", 0.1),
        ("trial.dt='0.0001s'", 0.1),
        ("trial.duration=2 s", 2000),
        ("trial.stim_off=1e3ms", 1000),
        ("target.period=0.5", 0.5),
        ("target.period='0.5'", 0.5),
        ("synapse.tau_plas='150000 µs'", 150),
        ("noise.sigma=0.5 threshold", 0.5),
        ("static.strength=20e-3 threshold*s", 20),
        ("stimulus.sigma='0.2 threshold/sqrt(ms)'", 0.2),
        ("stimulus.sigma='10 threshold/sqrt(s)'", 0.316227766017),
        ("target.rate_floor=12 /min", 0.2),
        ("target.rate_floor=5 Hz", 5),
    ],
)
def test_numbers_may_come_with_a_unit(override, value):
    overrides = ["target=recording", override] if "rate_floor" in override else [override]
    section, name = override.split("=")[0].split(".")
    assert getattr(getattr(compose(*overrides), section), name) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trial.stim_off=1/60 min", "trial.stim_off=1/60 min: cannot be read; expected a number in ms"),
        ("trial.dt=5 Hz", "trial.dt=5 Hz: Hz is not a unit of this setting; expected a number in ms, or with its unit, such as"),
        ("trial.dt=5 furlongz", "trial.dt=5 furlongz: no such unit as furlongz; expected a number in ms"),
        ("noise.sigma=0.5 mV", "noise.sigma=0.5 mV: mV is not a unit of this setting; expected a number in threshold"),
        ("noise.sigma=0.5 mV", "voltages and currents are counted in thresholds here, not in volts"),
        ("rls.penlambda=0.8 ms", "rls.penlambda=0.8 ms: expected a number without a unit."),
        ("trial.dt='0.1 ms)'", "trial.dt=0.1 ms): cannot be read; expected a number in ms"),
        ("trial.dt='1.2.3 ms'", "trial.dt=1.2.3 ms: expected a number in ms"),
        ("trial.dt='0.1 ms**9**9**9**9'", "cannot be read"),
        ("trial.dt='1e999 s'", "trial.dt=inf: expected a finite number in ms"),
        ("trial.dt=-100 us", "trial.dt=-0.1: expected a value above 0 ms"),
        ("train.iterations=5 s", "train.iterations=5 s: expected a whole number."),
    ],
)
def test_mistaken_units_are_named(override, message):
    with pytest.raises(UserError) as caught:
        compose(override)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "chosen"),
    [
        ("null", range(10)),
        ("3", [3]),
        ("[7,0,7]", [0, 7]),
        ("0:3", [0, 1, 2]),
        ("8:", [8, 9]),
        (":2", [0, 1]),
        ("exc", range(6)),
        ("[inh,2:4,0]", [0, 2, 3, 6, 7, 8, 9]),
        ("10", "test.neurons=10: reaches beyond the 10 neurons; expected 0 to 9."),
        ("[0,5:11]", "test.neurons=5:11: reaches beyond the 10 neurons; expected a range within 0:10."),
        ("4:4", "test.neurons=4:4: matches none of the 10 neurons"),
    ],
)
def test_chosen_neurons(override, chosen):
    config = compose(f"test.neurons={override}")
    assert from_dict(to_dict(config)) == config
    excitatory = np.arange(10) < 6
    if isinstance(chosen, str):
        with pytest.raises(UserError) as caught:
            select_neurons(config.test.neurons, excitatory)
        assert chosen in str(caught.value)
    else:
        assert select_neurons(config.test.neurons, excitatory).tolist() == list(chosen)


def test_an_experiment_made_for_another_variant(caplog):
    """Its settings of that variant are ignored, with a message; those of the command line are refused."""
    with caplog.at_level("INFO"):
        config = compose("config=tiny", "static=erdos_renyi")
    assert config.static.probability == 0.1
    assert "static.out_degree is ignored, as static.name=erdos_renyi has no such setting" in caplog.text
    with pytest.raises(UserError, match="static.out_degree: cannot be combined with static.name=erdos_renyi"):
        compose("config=tiny", "static=erdos_renyi", "static.out_degree=12")


def test_a_missing_key_has_its_default_and_a_required_one_is_named():
    values = to_dict(compose("rls.penlambda=0.4"))
    del values["rls"]["penmu"], values["train"]
    assert from_dict(values) == compose("rls.penlambda=0.4")
    assert from_dict({"neuron": {"name": "glif5", "tau_m": 20}}).neuron == schema.GLIF5Config(tau_m=20.0)
    with pytest.raises(UserError, match="static.path: missing; expected file of static synapses: a SciPy sparse matrix"):
        from_dict({"static": {"name": "edges"}})
    with pytest.raises(UserError, match="static.path: missing"):
        compose("static=edges")


def test_the_dataclasses_are_the_defaults():
    """Without Hydra: every section by itself, the experiment sinusoid, and every option of a group as Hydra composes it."""
    assert schema.Config() == from_dict({}) == compose() == compose("config=sinusoid")
    assert (schema.RLSConfig().penlambda, schema.TrialConfig().n_points, schema.LIFConfig().tau_m) == (0.8, 100, 10)
    assert schema.GLIF5Config().name == "glif5" and schema.FixedDegreeConfig().out_degree == 410
    for group in default_variants():
        for cls in variants(typing.get_type_hints(schema.Config)[group]):
            if not cls.__module__.startswith("rlsnet."):  # of a plugin of another test
                continue
            required = [field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING]
            given = dict.fromkeys(required, "here.npy")
            texts = [f"{group}.{name}={value}" for name, value in given.items()]
            assert getattr(compose(f"{group}={choices_of(cls)[0]}", *texts), group) == cls(**given)


def test_experiments_read_without_hydra_are_those_that_it_composes():
    for name, chosen, given in composition.experiments():
        values = {group: {"name": option} for group, option in chosen.items()}
        for key, value in flat(given).items():
            section, _, last = key.rpartition(".")
            values.setdefault(section, {"name": default_variants()[section]} if section in default_variants() else {})[last] = value
        assert from_dict(values) == compose(f"config={name}"), name


def test_an_experiment_may_build_on_others(monkeypatch):
    """The later wins, setting by setting, also outside of a section."""
    files = {
        "first": {"seed": 3, "rls": {"penlambda": 1.0, "penmu": 1.0}, "defaults": [{"override /target": "recording"}]},
        "second": {"rls": {"penmu": 2.0}, "defaults": [{"override /target": "sinusoid"}, {"override /static": "none"}]},
        "third": {"defaults": ["first", "second", "_self_"], "seed": 4, "trial": {"dt": 0.2}},
    }
    monkeypatch.setattr(composition, "variant_settings", lambda section, name: copy.deepcopy(files[name]))
    monkeypatch.setattr(composition, "variant_names", lambda: {"config": ["third"]})
    ((name, chosen, given),) = composition.experiments()
    assert (name, chosen) == ("third", {"target": "sinusoid", "static": "none"})
    assert given == {"seed": 4, "rls": {"penlambda": 1.0, "penmu": 2.0}, "trial": {"dt": 0.2}}
    assert composition.builds_on_another("third") and not composition.builds_on_another("second")


def test_an_option_of_ones_own_need_not_list_every_setting(tmp_path):
    """The rest is at the defaults of its variant, and can be set like any other."""
    (tmp_path / "neuron").mkdir()
    (tmp_path / "neuron" / "mine.yaml").write_text("name: glif3\ntau_m: 20\n")
    config = compose("neuron=mine", "neuron.rest=-0.5", config_dir=tmp_path)
    assert config.neuron == schema.GLIF3Config(tau_m=20.0, rest=-0.5)
    with pytest.raises(UserError, match="neuron.floor: no such key"):
        compose("neuron=mine", "neuron.floor=1", config_dir=tmp_path)
    with pytest.raises(UserError, match="neuron.adaptation_rate: cannot be combined with neuron.name=glif3"):
        compose("neuron=mine", "neuron.adaptation_rate=1", config_dir=tmp_path)


def test_old_names_work_with_a_notice(tmp_path, caplog):
    """On the command line, in a file of the user's own and in the settings of a run."""
    with caplog.at_level("WARNING"):
        config = compose("train.resources_every=5", "engine.kernels=wide")
    assert (config.resources_every, config.engine.kernels) == (5, "fixed_shape")
    assert caplog.messages == ["train.resources_every is now resources_every.", "engine.kernels=wide is now engine.kernels=fixed_shape."]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "mine.yaml").write_text("# @package _global_\ntrain: {resources_every: 5}\nengine: {kernels: wide}\n")
    assert compose("config=mine", config_dir=tmp_path) == config
    assert compose("config=mine", "resources_every=7", config_dir=tmp_path).resources_every == 7
    old = to_dict(config)
    old["train"]["resources_every"] = old.pop("resources_every")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert Run(tmp_path).config() == config and "resources_every" not in Run(tmp_path).saved_config()["train"]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("recording.path=~/x.zarr", os.path.expanduser("~/x.zarr")),
        ("recording.path=/data/my file (1).zarr", "/data/my file (1).zarr"),
        ("recording.path=/data/mouse#3.zarr", "/data/mouse#3.zarr"),
        ("recording.path=/data/[v2]/x.zarr", "/data/[v2]/x.zarr"),
        ("network.load=/d/x=1.zarr", "/d/x=1.zarr"),
        ("network.load='/d/it is.zarr'", "/d/it is.zarr"),
        ("network.load=null", None),
        ("run=a,b (c)", "a,b (c)"),
    ],
)
def test_any_path_may_be_given(override, value):
    section, _, name = override.split("=")[0].rpartition(".")
    config = compose("target=recording", override)
    assert getattr(getattr(config, section) if section else config, name) == value


def test_a_comma_in_a_path_is_part_of_it_where_there_is_such_a_path(tmp_path):
    (tmp_path / "a,b").mkdir()
    assert compose("target=recording", f"recording.path={tmp_path}/a,b").recording.path == f"{tmp_path}/a,b"
    assert composition.quoted("recording.path=a (1).zarr,b.zarr") == "recording.path='a (1).zarr',b.zarr"
    with pytest.raises(UserError, match="several values make a sweep"):
        compose("target=recording", "recording.path=a.zarr,b.zarr")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["plastic.n_inputs=600"], "plastic.n_inputs=600: expected at most 512, because half of them are drawn from 256 excitatory"),
        (["static.out_degree=512"], "static.out_degree=512: expected at most 511"),
        (["network.n_neurons=null"], "network.n_neurons=null: expected a number"),
        (["plastic.n_inputs=0"], "plastic.n_inputs=0: expected at least 2 to train"),
        (
            ["target=recording", "static.out_degree=0", "recording.path={}/none.zarr"],
            "no such folder; expected a Zarr store of format rlsnet-recording",
        ),
        (["network.n_neurons=4000000", "plastic.n_inputs=1000"], "memory: the run needs 16"),
        (["config=million", "network.n_neurons=100000000"], " (fits in "),
    ],
)
def test_mistakes_that_show_only_later_are_named(tmp_path, overrides, message):
    with pytest.raises(UserError) as caught:
        training.run_training(
            compose("config=tiny", "progress=off", *(o.format(tmp_path) for o in overrides)), Run(tmp_path / "run"), resumed=False
        )
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_every_key_is_described():
    """Each setting says what it means; each number that has a unit in its default's comment has it in the schema."""

    def walk(cls):
        for field in dataclasses.fields(cls):
            nested = variants(typing.get_type_hints(cls)[field.name])
            for each in nested:
                yield from walk(each)
            if not nested:
                yield field

    fields = list(walk(schema.Config))
    assert len(fields) > 50 and all(field.metadata["help"] for field in fields)


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({"train": {"iterations": 9, "order": "shuffled", "checkpoint_every": 3, "save_best": False}}, None),
        ({"train": {"trials_per_update": 4}}, "train.trials_per_update=4: somewhere was made with 1; this cannot change"),
        ({"test": {"trials": 9}}, None),
        ({"progress": "off"}, None),
        ({"rls": {"penlambda": 0.4}}, "rls.penlambda=0.4: somewhere was made with 0.8; this cannot change in an existing run"),
        ({"network": {"n_neurons": 7}}, "network.n_neurons=7"),
        ({"resources_every": 0.0}, None),
        ({"rls": {"penmu": [0.1, 0.2]}}, "rls.penmu=[0.1,0.2]: somewhere was made with 0.01; this cannot change"),
        ({"network": {"load": "a b/network.zarr"}}, "network.load='a b/network.zarr': somewhere was made with null; this cannot change"),
        ({"engine": {"precision": "float64"}}, "engine.precision=float64"),
        ({"stimulus": {"name": "none"}}, "stimulus.name=none"),
    ],
)
def test_what_may_change_on_resume(changed, refused):
    import copy

    saved = to_dict(compose())
    requested = copy.deepcopy(saved)
    for key, value in changed.items():
        requested[key] = {**requested[key], **value} if isinstance(value, dict) else value
    if refused is None:
        check_unchanged(saved, requested, "somewhere")
    else:
        with pytest.raises(UserError) as caught:
            check_unchanged(saved, requested, "somewhere")
        assert refused in str(caught.value)


PLUGIN = """
import dataclasses
from rlsnet.config import StaticConfig, StimulusConfig, UserError, key, variant


@dataclasses.dataclass(frozen=True)
class PulseConfig(StimulusConfig):
    name: str = variant("kind of stimulus", "pulse")
    tau: float = key("decay time", "ms", default=5.0, above=0, decay=True)
    width: float = key("width", "ms", default=1.0, least=0, steps=True)

    def n_values(self, n, stored):
        return 1000 * n

    def check(self, config):
        if self.width > config.trial.stim_off:
            raise UserError(f"stimulus.width={self.width:g} ms: expected at most trial.stim_off.")


@dataclasses.dataclass(frozen=True)
class PairsConfig(StaticConfig):
    name: str = variant("static connectivity", "pairs")

    def n_edges(self, n):
        return n // 2
"""


def test_a_variant_of_a_plugin_checks_itself_and_counts_its_memory(tmp_path):
    (tmp_path / "pulse.py").write_text(PLUGIN)
    plugins = {"plugins": [str(tmp_path / "pulse.py")], "static": {"name": "pairs"}}

    def made(**settings):
        return from_dict({**plugins, "stimulus": {"name": "pulse", **settings}})

    sizes = memory_plan.Sizes.of(made(), None, 1)
    assert (made().stimulus.tau, sizes.edges, sizes.stimulus) == (5, 2048, 4_096_000)
    for settings, message in (
        ({"tau": 0.15}, "stimulus.tau=0.15 ms: expected at least twice trial.dt=0.1 ms"),
        ({"width": 0.25}, "stimulus.width=0.25 ms: expected a multiple of trial.dt=0.1 ms"),
        ({"width": 2000}, "stimulus.width=2000 ms: expected at most trial.stim_off"),
    ):
        with pytest.raises(UserError, match=message):
            made(**settings)


def test_a_resumed_configuration_is_the_saved_one_with_the_command_line_over_it_and_parsed_once(tmp_path, monkeypatch):
    run, parsed, check = Run(tmp_path), [], schema.Config.check
    saved = compose("config=tiny", "neuron=glif3", "neuron.asc_tau_1=20", "rls.penlambda=0.4")
    run.save_config(saved)
    monkeypatch.setattr(schema.Config, "check", lambda config: (parsed.append(config), check(config)))
    overrides = [f"resume={tmp_path}", "train.iterations=7", "engine.kernels=xla", "neuron.asc_tau_1=20 ms"]
    config = resumed_config(run, composition.compose(overrides), overrides)
    assert len(parsed) == 1
    changed = {"train": dataclasses.replace(saved.train, iterations=7), "engine": dataclasses.replace(saved.engine, kernels="xla")}
    assert config == dataclasses.replace(saved, **changed)
    for override, message in (
        ("rls.penmu=[0.1,0.2]", "rls.penmu=[0.1,0.2]: .* was made with 0.01"),
        ("config=sinusoid", "network.n_neurons=4096: .* was made with 512"),
        ("~tracking", "~tracking: a setting cannot be removed from an existing run"),
    ):
        with pytest.raises(UserError, match=message.replace("[", r"\[")):
            resumed_config(run, composition.compose([override] if "=" in override else []) | {"resume": "here"}, [override])


def test_settings_that_an_experiment_has_are_left_out():
    """Numbers are equal however they are written."""
    given = ["target=currents", "recording.path=r.zarr", "trial.learn_every=20", "trial.duration=2500", "recording.half=odd"]
    assert differences.beyond("mouse_decision", given) == [given[0], given[1], given[3], given[4]]
    assert differences.beyond("mouse_decision", ["plastic.n_inputs=96", "rls.penlambda=0.020"]) == []
