"""The paper's numbers, typed a second time, and the places in a record that they are compared with."""

import pytest
from model_cases import noise

from qmvae_core import evaluation
from qmvae_core.data import MODALITIES
from qmvae_core.models import MODELS, READINGS, TEST_CODES, build_model, reading
from qmvae_core.names import TITLES
from qmvae_study import paper
from qmvae_study.evidence.records import Record
from qmvae_study.oracles import DigitClassifier, OracleConfig

# As printed, a row a line: model, then the cells from left to right.
TABLE1 = """
mvae   31.8 1.4   57.1 3.4
mmvae  86.4 0.5   69.1 2.5
dmvae  91.6 0.8   76.4 0.4
qmvae  92.2 0.3   81.3 0.5
"""
TABLE2 = """
mvae   79.8 3.8   65.1 4.6   80.2 3.6
mmvae  91.3 0.4   68.0 0.6   not applicable
dmvae  95.0 0.6   79.9 1.4   92.9 1.8
qmvae  98.3 0.1   80.2 0.2   97.9 0.1
"""


def typed(table: str, columns: list[str]) -> dict[str, dict[str, tuple[float, float] | None]]:
    found = {}
    for line in table.strip().splitlines():
        model, *cells = line.split()
        pairs = [cells[i : i + 2] for i in range(0, len(cells), 2)]
        values = [None if pair == ["not", "applicable"] else tuple(map(float, pair)) for pair in pairs]
        found[model] = dict(zip(columns, values, strict=True))
    return found


def test_the_tables_are_the_printed_ones_cell_by_cell():
    assert typed(TABLE1, ["MNIST→SVHN", "SVHN→MNIST"]) == paper.TABLE1
    assert typed(TABLE2, ["MNIST", "SVHN", "MNIST-SVHN"]) == paper.TABLE2
    cell = paper.TABLE1["qmvae"]["SVHN→MNIST"]
    assert (cell.mean, cell.std, str(cell)) == (81.3, 0.5, "81.3 ± 0.5")


def test_settings_are_those_of_the_paper():
    gain = paper.TABLE1["qmvae"]["SVHN→MNIST"].mean - paper.TABLE1["dmvae"]["SVHN→MNIST"].mean
    assert (paper.SEEDS, paper.GAIN_OVER_DMVAE.mean) == (5, pytest.approx(gain))
    assert paper.GAIN_OVER_DMVAE.std == pytest.approx((0.5**2 + 0.4**2) ** 0.5)
    assert (paper.TRAIN_PAIRS, paper.TEST_PAIRS) == (1_682_040, 300_000)


def test_every_model_has_a_name_and_a_row():
    assert list(TITLES)[:4] == list(paper.TABLE1) == list(paper.TABLE2)
    assert {*MODELS, *(config.model for config in READINGS.values())} <= set(TITLES)
    for table, columns in ((paper.TABLE1, paper.TABLE1_COLUMNS), (paper.TABLE2, paper.TABLE2_COLUMNS)):
        for row in table.values():
            assert row.keys() == columns.keys()


@pytest.fixture(scope="module")
def metrics():
    """What evaluate() gives for a small untrained model of the default reading."""
    splits = [noise(dict.fromkeys(MODALITIES, [each] * 10), each) for each in (12, 1)]
    oracles = {name: DigitClassifier(name, OracleConfig(epochs=1, channels=2)) for name in MODALITIES}
    model = build_model(reading("default+mnist.widths=[4]+svhn.widths=[2,2]"), 0)
    return evaluation.evaluate(model, *splits, oracles)


@pytest.mark.parametrize("path", [*paper.TABLE1_COLUMNS.values(), *paper.TABLE2_COLUMNS.values()], ids=" ".join)
def test_each_column_points_to_a_number_that_evaluation_gives(metrics, path):
    for code in TEST_CODES:
        record = Record(id="r", metrics=metrics, config={"model": {"test_code": code}})
        value = metrics
        for key in (*path, code) if path[0] == "cross_generation" else path:
            value = value[key]
        assert record.share(*path).per_cent == 100 * value["accuracy"]


def test_columns_point_in_the_direction_of_their_name():
    for column, (_, direction) in paper.TABLE1_COLUMNS.items():
        assert direction == column.lower().replace("→", "->")
    assert {column: path[-1] for column, path in paper.TABLE2_COLUMNS.items()} == {
        "MNIST": "mnist", "SVHN": "svhn", "MNIST-SVHN": "joint",
    }  # fmt: skip
