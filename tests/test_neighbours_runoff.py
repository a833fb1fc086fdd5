"""Chapter B5: the recurrence against torch's, the indices against plain loops, the series against damaged files."""

import dataclasses
import datetime
import functools
import math
import os
from pathlib import Path

import pytest
import torch

from qmvae_core.data import DataError
from qmvae_neighbours import experiments
from qmvae_neighbours.runoff import data, experiment, results
from qmvae_neighbours.runoff import model as runoff

HEADER = "YR MNTH DY HR PRCP OBS_RUN\n"
TINY = {"smoke": dataclasses.replace(experiment.SETTINGS["smoke"], units=3)}


@pytest.mark.parametrize(
    "make", [runoff.Recurrent, runoff.BackPropagation, functools.partial(runoff.Recurrent, memory=torch.nn.RNN)]
)
def test_a_forecast_knows_the_past_and_not_the_future(make, generator):
    model = make(generator=generator)
    assert make is runoff.BackPropagation or model.memory.num_layers == 2
    values = torch.rand(2, 9, generator=generator)
    changed = values.clone()
    changed[:, 5] += 1.0
    before, after = model(values), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


def test_the_plain_network_is_the_equations_of_the_thesis(generator):
    """(2-3) to (2-5): h = A(x, h) from h = 0, and the forecast is W h, without a constant."""
    model = runoff.Recurrent(1, 4, generator, torch.nn.RNN).double()
    into, back, *constants, (out,) = (value.detach().tolist() for value in model.parameters())
    values, h = torch.rand(1, 9, generator=generator, dtype=torch.float64), [0.0] * 4
    forecasts = model(values)[0].tolist()
    for x, forecast in zip(values[0].tolist(), forecasts, strict=True):
        h = [
            math.tanh(into[u][0] * x + sum(back[u][v] * h[v] for v in range(4)) + sum(each[u] for each in constants))
            for u in range(4)
        ]
        assert forecast == pytest.approx(sum(out[u] * h[u] for u in range(4)), abs=1e-12)


def test_the_objective_is_minus_the_likelihood_of_normal_errors_up_to_a_constant_and_a_factor(generator):
    values, *made = (torch.rand(1, 9, generator=generator, dtype=torch.float64) for _ in range(3))
    likelihood = [torch.distributions.Normal(each[:, :-1], 0.3).log_prob(values[:, 1:]).sum() for each in made]
    squares = [runoff.squared_error(each, values) for each in made]
    torch.testing.assert_close(likelihood[0] - likelihood[1], (squares[1] - squares[0]) / (2 * 0.3**2))


def test_the_network_4_4_1_sees_four_days(generator):
    model = runoff.BackPropagation(generator)
    values = torch.rand(1, 12, generator=generator)
    torch.testing.assert_close(model(values)[0, 7], model.layers(values[0, 4:8])[0])


def test_the_objective_compares_a_forecast_with_the_next_day():
    forecasts, values = torch.tensor([[2.0, 5.0, 9.0]]), torch.tensor([[1.0, 2.5, 4.0]])
    assert runoff.squared_error(forecasts, values) == (2.0 - 2.5) ** 2 + (5.0 - 4.0) ** 2


def test_the_indices_are_those_of_plain_loops(generator):
    y, x = (0.5 + torch.rand(30, generator=generator, dtype=torch.float64) for _ in range(2))
    found = runoff.indices(y, x)
    relative = [100 * (a - b) / b for a, b in zip(y.tolist(), x.tolist(), strict=True)]
    squares = sum((a - b) ** 2 for a, b in zip(y.tolist(), x.tolist(), strict=True))
    assert found.m == pytest.approx(sum(relative) / 30)
    assert found.s == pytest.approx(100 * math.sqrt(squares / 29) / (sum(x.tolist()) / 30))
    assert (found.largest, found.smallest) == pytest.approx((max(relative), min(relative)))
    assert found.range == pytest.approx(max(relative) - min(relative))
    assert found.m_printed == pytest.approx(sum(abs(each) for each in relative) / 100)


def test_a_forecast_that_is_never_too_low_has_no_negative_error():
    found = runoff.indices([2.0, 3.0], [1.0, 3.0])
    assert (found.largest, found.smallest, found.range) == (100.0, 0.0, 100.0)


def test_a_day_without_flow_counts_in_the_spread_and_has_no_relative_error():
    found = runoff.indices([1.0, 3.0, 2.0], [0.0, 2.0, 2.0])
    assert found == pytest.approx((25.0, 100 * 1 / (4 / 3), 50.0, 0.0, 50.0, 0.5))


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("judge", [runoff.indices, runoff.skill])
def test_a_forecast_that_is_not_a_number_is_not_judged(judge, wrong):
    good, bad = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, wrong, 4.0])
    with pytest.raises(ValueError, match=f"days have the forecast {wrong}"):
        judge(bad, good)
    with pytest.raises(ValueError, match=f"days have the observation {wrong}"):
        judge(good, bad)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("YR MNTH DY PRCP\n", "no column OBS_RUN"),
        (HEADER, "no day"),
        (HEADER + "1980 10 01 12 0.0 0.5\n1980 10 03 12 0.0 0.5\n", "line 3: 1980-10-03 does not follow 1980-10-01"),
        (HEADER + "1980 10 01 12 0.0 -1\n", "line 2: a runoff of -1.0 cannot be"),
        (HEADER + "1980 10 01 12 0.0 nan\n", "a runoff of nan cannot be"),
        (HEADER + "1980 10 01 12\n", "line 2, cannot be read"),
        (HEADER + "1980 13 01 12 0.0 0.5\n", "line 2, cannot be read"),
        (HEADER + "80 10 01 12 0.0 0.5\n", "line 2, cannot be read"),
        (HEADER + "1980 10 01 12 7.5 0.0 0.5\n", "line 2, cannot be read: 7 fields in place of 6"),
        (HEADER + "1980 10 01 12 0.0 -999\n", "line 2: a runoff of -999.0 cannot be"),
        (HEADER + "1980 10 01 12 0.0 9999.00\n", "line 2: a runoff of 9999.0 cannot be"),
        (HEADER + "1980 10 01 12 0.0 1_0\n", "line 2: a runoff of 1_0 cannot be"),
        (HEADER + "1980 10 01 12 0.0 Ice\n", "line 2: a runoff of Ice cannot be"),
        (HEADER + 2 * "1980 10 01 12 0.0 0.5\n", "line 3: 1980-10-01 does not follow 1980-10-01"),
        (
            HEADER + "1980 10 01 12 0.0 0.5500\n1980 10 02 12 0.0 0.5",
            "line 3, is short and has no end: the file was cut",
        ),
        ("YR MNTH DY HR OBS_RUN OBS_RUN\n1980 10 01 12 7.5 0.5\n", "two columns OBS_RUN"),
        ("", "is empty"),
        (HEADER + "1980 10 01 12 0.0 0.5\n1980 10 02 12 0.0 ½\n", "line 3: a runoff of ½ cannot be"),
        ("01022500 2000 01 01 255.00 A\n01022500 2000 01 02 -999.00 M\n", "line 2: a runoff of -999.0 cannot be"),
        ("01022500 2000 01 01 255.00 P\n", "line 1: the flag P is neither A nor A:e"),
        ("01022500 2000 01 01 255.00\n", "line 1, cannot be read: 5 fields in place of 6"),
        ("01022500 2000 01 01 255.00 A\n01547700 2000 01 02 9.00 A\n", "line 2: gauge 01547700 stands among"),
    ],
)
def test_a_damaged_file_is_refused_by_line(text, message, tmp_path):
    (tmp_path / "runoff.txt").write_text(text)
    with pytest.raises(DataError, match=rf"runoff\.txt.*{message}.*; "):
        data.read_runoff(tmp_path / "runoff.txt")


@pytest.mark.parametrize(("encoding", "line"), [("utf-16", 1), ("latin-1", 3)])
def test_another_encoding_is_refused_by_line(encoding, line, tmp_path):
    (tmp_path / "runoff.txt").write_text(HEADER + "1980 10 01 12 0.0 0.5\n1980 10 02 12 0.0 ½\n", encoding=encoding)
    with pytest.raises(DataError, match=rf"runoff\.txt, line {line}: this is not a text file in UTF-8; get"):
        data.read_runoff(tmp_path / "runoff.txt")


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.txt cannot be read \(No such file or directory\); get"):
        data.read_runoff(tmp_path / "none.txt")


def test_the_longest_stretch_without_a_gap_is_taken_if_that_is_wanted_and_says_how_much_it_leaves_out(tmp_path):
    values = {1: "1.0", 2: "2.0", 3: "-999", 4: "4.0", 5: "5.0", 6: "6.0", 8: "8.0", 9: "nan"}
    text = "".join(f"1980 10 {day:02d} 12 0.0 {value}\n" for day, value in values.items())
    (tmp_path / "runoff.txt").write_text(HEADER + text)
    with pytest.raises(DataError, match=r"line 4: a runoff of -999.0 cannot be; .*read_runoff\(path, longest=True\)"):
        data.read_runoff(tmp_path / "runoff.txt")
    found = data.read_runoff(tmp_path / "runoff.txt", longest=True)
    assert (found.first, found.values.tolist()) == (datetime.date(1980, 10, 4), [4.0, 5.0, 6.0])
    assert found.notes == ("6 of 9 days are left out; the rest is the longest stretch without a gap",)
    (tmp_path / "runoff.txt").write_text(HEADER + text + "1980 10 09 12 0.0 1.0\n")
    with pytest.raises(DataError, match="line 10: 1980-10-09 does not follow 1980-10-09"):
        data.read_runoff(tmp_path / "runoff.txt", longest=True)


def test_a_gauge_is_read_as_published_with_its_flags(tmp_path):
    (tmp_path / "gauge.txt").write_text("01022500 2000 01 01   255.00 A:e\n01022500 2000 01 02     0.00 A\n")
    found = data.read_runoff(tmp_path / "gauge.txt")
    assert (found.first, found.values.tolist()) == (datetime.date(2000, 1, 1), [255.0, 0.0])
    assert (found.unit, found.notes) == ("cubic feet a second", ("1 of 2 days are estimates that were approved",))


def written(root: Path, series: data.Runoff, values: torch.Tensor) -> str:
    """A data root with a river of other values than those of the series."""
    days = (series.first + datetime.timedelta(days=number) for number in range(len(values)))
    lines = (f"{day:%Y %m %d} 12 0.0 {value!r}\n" for day, value in zip(days, values.tolist(), strict=True))
    (root / "river").mkdir(parents=True)
    (root / data.FILE).write_text(HEADER + "".join(lines))
    return str(root)


def test_a_river_is_known_by_its_content_and_not_by_its_name(tmp_path, monkeypatch):
    series = data.standin_runoff()
    root = written(tmp_path, series, series.values)
    (note,) = data.load_runoff(root).notes
    assert "not the one" in note
    monkeypatch.setitem(data.KNOWN_CONTENT, data.RIVER, series.content_hash())
    assert data.load_runoff(root).notes == ()


@pytest.mark.real_data
def test_the_real_river_is_read_whole():
    root = os.environ.get("QMVAE_DATA_ROOT")
    if not root or not (Path(root) / data.FILE).exists():
        pytest.skip(f"there is no {data.FILE} in a data root")
    found = data.load_runoff(root)
    assert (found.first, len(found.values), found.kind) == (datetime.date(1980, 10, 1), 12_510, "real")
    assert found.notes == ()
    if not (Path(root) / "river/usgs_streamflow").exists():
        pytest.skip("there is no river/usgs_streamflow")
    for gauge, estimates in zip([*data.KNOWN_CONTENT][1:], (225, 14, 107, 90), strict=True):
        found = data.load_runoff(root, gauge)
        assert (found.first, len(found.values), found.kind) == (datetime.date(2000, 1, 1), 1096, "real")
        assert found.notes == (f"{estimates} of 1,096 days are estimates that were approved",)


def test_a_root_without_the_river_says_so(tmp_path, capsys):
    assert data.load_runoff(str(tmp_path)).kind == "stand-in"
    assert "made up" in capsys.readouterr().out


def test_the_wettest_month_of_each_year_is_taken_and_not_the_half_year_of_validation():
    series = data.standin_runoff()
    settings = experiment.Settings(after=2010, last=2011)
    values = series.values.clone()
    for first, after in (((2010, 3, 1), (2010, 4, 1)), ((2010, 11, 1), (2010, 12, 1)), ((2011, 2, 1), (2011, 3, 1))):
        values[series.between(datetime.date(*first), datetime.date(*after))] += 1000.0
    months = experiment.flood_months(series._replace(values=values), settings)
    november = series.between(datetime.date(2010, 11, 1), datetime.date(2010, 12, 1))
    assert months == {"2010-11": november, "2011-02": slice(november.start + 92, november.start + 120)}


def test_the_weights_that_forecast_the_validation_half_year_best_are_kept(tmp_path):
    series = data.standin_runoff()
    settings = dataclasses.replace(TINY["smoke"], steps=6, check=2, learning_rate=10.0)  # so that it gets worse
    model = runoff.Recurrent(1, 3, torch.Generator().manual_seed(0))
    start = {name: value.clone() for name, value in model.state_dict().items()}
    best, _ = experiment.train(model, series, 2008, settings, 0, "wild", experiments.Workshop(tmp_path))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in start.items())
    assert best.step == 0


def changed(series: data.Runoff, first: datetime.date, after: datetime.date) -> data.Runoff:
    """The series with other values from one day to the one before another."""
    values = series.values.clone()
    values[series.between(first, after)] += torch.linspace(0, 9, (after - first).days)
    return series._replace(values=values)


def test_only_the_validation_half_year_has_a_say_in_which_weights_are_kept(tmp_path):
    series = data.standin_runoff()
    settings = dataclasses.replace(TINY["smoke"], steps=60, check=2, learning_rate=0.05)
    half_year = datetime.date(2010, 1, 1), datetime.date(2010, 7, 1)

    def kept(name: str, series: data.Runoff) -> tuple[runoff.Recurrent, experiment.Best, runoff.Scale]:
        model = runoff.Recurrent(1, 3, torch.Generator().manual_seed(0))
        return model, *experiment.train(model, series, 2008, settings, 0, name, experiments.Workshop(tmp_path / name))

    model, best, scale = kept("as it is", series)
    later, *_, later_scale = kept("other test days", changed(series, half_year[1], datetime.date(2013, 1, 1)))
    assert all(torch.equal(later.state_dict()[name], value) for name, value in model.state_dict().items())
    _, other, other_scale = kept("other validation", changed(series, *half_year))
    assert later_scale == other_scale == scale
    assert other.step != best.step

    days = series.values[series.between(datetime.date(2008, 1, 1), half_year[1])]
    made = experiment.forecasts(model, scale, series, 2008)[series.between(*half_year)]
    error = (scale.normalised(made) - scale.normalised(days[-len(made) :])).square().mean()
    assert best.error == pytest.approx(float(error), rel=1e-4)


def test_skill_is_nothing_for_persistence_and_one_for_the_truth(generator):
    observed = torch.rand(20, generator=generator)
    yesterday = torch.cat([observed[:1], observed[:-1]])
    assert runoff.skill(yesterday, observed) == pytest.approx(0.0)
    assert runoff.skill(observed, observed) == 1.0
    errors = sum((a - b) ** 2 for a, b in zip([0.5] * 19, observed[1:].tolist(), strict=True))
    steps = sum((a - b) ** 2 for a, b in zip(observed[:-1].tolist(), observed[1:].tolist(), strict=True))
    assert runoff.skill(torch.full((20,), 0.5), observed) == pytest.approx(1 - errors / steps)


def test_a_river_that_falls_dry_is_judged_and_the_record_says_for_how_long(tmp_path):
    series = data.standin_runoff()
    values = series.values.clone()
    values[series.between(datetime.date(2011, 8, 1), datetime.date(2011, 9, 1))] = 0.0
    root = written(tmp_path / "root", series, values)
    found = experiments.obtain("B5", "smoke", TINY, experiment.carry_out, root, tmp_path / "out")
    assert "31 of 915 test days are without flow and have no relative error" in found.record.data.notes
    judged = found.metrics["indices of all test days"]["persistence"]["0"]
    assert all(math.isfinite(value) for value in judged.values())


@pytest.mark.parametrize(
    ("first", "last", "value", "message"),
    [
        (1980, 2015, 0.5, "the years from 2007 is always 0.5"),
        (2011, 2011, 0.0, "no water flows in the test days of 2011"),
        (2010, 2012, 0.25, "the test is always 0.25"),
    ],
)
def test_a_river_that_cannot_be_judged_is_refused_before_anything_is_trained(
    first, last, value, message, tmp_path, monkeypatch
):
    series = data.standin_runoff()
    days = [series.first + datetime.timedelta(days=number) for number in range(len(series.values))]
    there = torch.tensor([first <= day.year <= last for day in days])
    root = written(tmp_path / "root", series, series.values.where(~there, value))
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("a network was trained"))
    with pytest.raises(DataError, match=f"{message}.*choose other years"):
        experiments.obtain("B5", "smoke", TINY, experiment.carry_out, root, tmp_path / "out")


def test_each_station_has_a_seed_of_its_own_and_the_plain_network_the_river_of_the_rest(tmp_path):
    tiny = dataclasses.replace(experiment.STATIONS["smoke"].stations, units=3)
    stations = {"smoke": experiment.Stations(tiny, dataclasses.replace(TINY["smoke"], seeds=(0, 1)))}
    found = experiments.obtain("B5", "smoke", stations, experiment.carry_out_stations, out=tmp_path)
    river, *gauges = sorted(found.metrics, key=lambda gauge: gauge != data.RIVER)
    networks = {gauge: {name: list(of) for name, of in found.metrics[gauge]["kept"].items()} for gauge in found.metrics}
    assert networks.pop(river) == {results.RECURRENT: ["0", "1"]}
    assert [river, *gauges] == [*data.KNOWN_CONTENT]
    assert networks == {
        g: dict.fromkeys((results.PLAIN, results.DEEP), [str(n)]) for n, g in enumerate(gauges, start=1)
    }
    assert len({tuple(found.tensors[f"{gauge}/observed"].tolist()) for gauge in gauges}) == 4
    table = results.of_stations(found)
    for gauge, name in table.index:
        made, observed = (found.tensors[f"{gauge}/{each}"] for each in (name, "observed"))
        assert len(observed) == 184
        assert table.loc[(gauge, name), "s"] == pytest.approx(runoff.indices(made, observed).s)
        assert table.loc[(gauge, name), "skill"] == pytest.approx(100 * runoff.skill(made, observed))


@pytest.mark.parametrize(
    ("deep", "plain", "m", "said"),
    [
        ((2.0, 2.0, 2.0, 9.0), 1.0, 0.5, ["holds in part", "holds"]),
        ((1.0, 1.0, 1.0, 1.0), 2.0, 3.0, ["holds", "not seen"]),
        ((3.0, 3.0, 3.0, 1.0), 2.0, 3.0, ["not seen", "not seen"]),
    ],
)
def test_a_verdict_on_four_stations_follows_their_numbers(deep, plain, m, said):
    def of(size: float, skill: float) -> dict:
        return {"1": dict.fromkeys(results.NAMES, size) | {"m": m}}, {"1": skill}

    metrics = {}
    for gauge, size in zip("abcd", deep, strict=True):
        judged = {results.DEEP: of(size, 0.5 + size / 100), results.PLAIN: of(plain, 0.1), "persistence": of(9.0, 0.0)}
        parts = [{name: values[part] for name, values in judged.items()} for part in (0, 1)]
        metrics[gauge] = dict(zip(("indices of all test days", "skill"), parts, strict=True))
    if said[0] == "not seen":
        metrics["a"]["skill"][results.DEEP]["1"] = -9.0
    found = results.station_verdicts(experiments.Found({"metrics": metrics}, {}))
    assert found["verdict"].tolist() == said


def test_the_tables_of_the_thesis_say_two_layers_are_better_in_most_indices_at_two_stations():
    assert results.bettered(results.THESIS).to_dict() == {"Yichang": 4, "Wanxian": 4, "Fengjie": 2, "Cuntan": 2}
    apart = results.THESIS["MAX+"] - results.THESIS["MAX-"] - results.THESIS["r"]  # by definition nothing
    assert apart[apart.abs() > 0.015].round(2).to_dict() == {("Fengjie", results.DEEP): 1.0}  # as it is printed


def test_a_river_that_is_too_short_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    series = data.standin_runoff()
    root = written(tmp_path / "root", series, series.values[:9000])
    monkeypatch.setattr(experiment, "train", lambda *_: pytest.fail("a network was trained"))
    with pytest.raises(DataError, match=r"has no 20\d\d-.*choose other years"):
        experiments.obtain("B5", "smoke", TINY, experiment.carry_out, root, tmp_path / "out")
