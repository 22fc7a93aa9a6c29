"""The machine by hand, and the quick counts beside the machine itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrm_extract.errors import ConfigError
from rrm_extract.rrm import LayerCost
from rrm_extract.rrm.eie import (
    EIE,
    Cycles,
    EieMachine,
    analytic_seconds,
    dense_equivalent_ops,
    detect,
    elementwise_seconds,
    encode_column,
    expected_entries,
    random_entries,
    run_reference,
    simulate_product,
    simulate_random_product,
    stored_entries,
)

FOUR = EieMachine(pes=4)

LAYER = LayerCost(
    name="fc",
    macs=512_000,
    input_elements=1000,
    output_elements=512,
    density=0.5,
    density_delta=0.1,
)


def both(weights: np.ndarray, activations: np.ndarray, machine: EieMachine) -> int:
    """The cycles, which the quick count and the machine itself agree on."""
    run = run_reference(weights, activations, machine=machine)
    np.testing.assert_allclose(run.outputs, weights @ activations, atol=1e-9)
    cycles = int(simulate_product(weights, activations, machine=machine).total)
    assert cycles == run.cycles
    return cycles


# The analytic model


def test_peak_of_the_paper() -> None:
    assert 2 * EIE.peak_macs == pytest.approx(102.4e9)
    alexnet_6 = dense_equivalent_ops(weight_density=0.09, activation_density=0.351)
    assert alexnet_6 == pytest.approx(3e12, rel=0.1)


def test_seconds_at_the_peak_are_eq_10() -> None:
    def seconds(of: str, weight_density: float = 1.0) -> float:
        return analytic_seconds(LAYER, of=of, weight_density=weight_density)  # type: ignore[arg-type]

    assert seconds("dense") == pytest.approx(512_000 / 64 / 800e6)
    assert seconds("input") / seconds("delta") == pytest.approx(5)
    assert seconds("delta", 0.2) == pytest.approx(0.1 * 0.2 * seconds("dense"))
    assert seconds("dense", 0.2) == seconds("dense")
    assert elementwise_seconds(LAYER) == pytest.approx(1512 / 64 / 800e6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pes": 0}, "pes of an EIE is 0"),
        ({"queue_depth": -1}, "queue_depth of an EIE is -1"),
        ({"index_bits": 17}, "expected at most 16"),
        ({"clock_hz": 0.0}, "clock_hz of an EIE is 0.0"),
        ({"clock_hz": float("nan")}, "clock_hz of an EIE is nan"),
    ],
)
def test_impossible_machine_fails(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EieMachine(**wrong)  # type: ignore[arg-type]


# Entries and padding


def test_a_gap_of_fifteen_needs_no_padding_and_one_of_sixteen_does() -> None:
    column = np.zeros(40)
    column[15] = 7
    assert encode_column(column) == [(7, 15)]
    column = np.zeros(40)
    column[16] = 7
    assert encode_column(column) == [(0, 15), (7, 0)]
    column[[16, 33]] = 7, 8  # sixteen zeros between them
    assert encode_column(column) == [(0, 15), (7, 0), (0, 15), (8, 0)]
    column = np.zeros(40)
    column[33] = 9
    assert encode_column(column) == [(0, 15), (0, 15), (9, 1)]


def test_the_column_of_the_paper() -> None:
    """The example of Sec. III-B: eighteen zeros before the 3 make one padding zero."""
    column = [0, 0, 1, 2, *[0] * 18, 3]
    assert encode_column(column) == [(1, 2), (2, 0), (0, 15), (3, 2)]


def test_nothing_is_kept_after_the_last_non_zero() -> None:
    assert encode_column([5, *[0] * 100]) == [(5, 0)]
    assert encode_column([0] * 100) == []


def test_stored_entries_by_hand() -> None:
    weights = np.zeros((80, 2))
    weights[0, 0] = weights[72, 0] = 1  # rows 0 and 18 of PE 0: seventeen zeros between
    weights[5, 1] = 1  # row 1 of PE 1
    entries = stored_entries(weights, machine=FOUR)
    assert entries.nonzeros.tolist() == [[2, 0, 0, 0], [0, 1, 0, 0]]
    assert entries.padding.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 60),
    density=st.floats(0, 1),
    bits=st.integers(1, 4),
    pes=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_stored_entries_are_those_of_the_encoder(
    rows: int, density: float, bits: int, pes: int, seed: int
) -> None:
    machine = EieMachine(pes=pes, index_bits=bits)
    weights = np.random.default_rng(seed).random((rows, 3)) < density
    entries = stored_entries(weights, machine=machine).total
    for pe in range(pes):
        for column in range(3):
            coded = encode_column(weights[pe::pes, column], machine=machine)
            assert entries[column, pe] == len(coded)


@pytest.mark.parametrize(("rows", "density"), [(64, 0.04), (64, 0.5), (10, 0.1), (138, 0.02)])
def test_expected_entries_are_the_mean_of_random_ones(rows: int, density: float) -> None:
    held = np.full((4000, 8), rows)
    random = np.random.default_rng(0)
    entries = random_entries(held, density=density, random=random).total
    error = entries.std() / np.sqrt(entries.size)
    assert abs(entries.mean() - expected_entries(rows, density=density)) < 4 * error


def test_expected_entries_of_a_full_and_of_an_empty_matrix() -> None:
    assert expected_entries(17, density=1.0) == 17
    assert expected_entries(17, density=0.0) == 0


# Detection


def test_detection_by_hand() -> None:
    # Groups of four: two found and a cycle for nothing; nothing; the last one found, none lost.
    found = detect([0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 4], machine=FOUR)
    assert found.index.tolist() == [1, 2, 10, 11]
    assert found.idle.tolist() == [0, 0, 2, 0]
    assert found.idle_after == 0
    assert detect([1, 0, 0, 0, 0], machine=FOUR).idle_after == 2


# Cycles, counted by hand


def test_one_full_column() -> None:
    # Sent in cycle 0; each PE then has three rows of it, in cycles 1, 2 and 3.
    weights = np.ones((12, 1))
    assert both(weights, np.ones(1), FOUR) == 4


def test_padding_takes_its_cycle() -> None:
    weights = np.zeros((80, 1))
    weights[72] = 1  # row 18 of PE 0, after eighteen zeros: one entry of padding
    assert both(weights, np.ones(1), FOUR) == 1 + 2


def test_the_slowest_processing_element_decides() -> None:
    weights = np.zeros((12, 2))
    weights[[0, 4, 8], 0] = 1  # three rows of PE 0
    weights[[1, 5, 9], 1] = 1  # three rows of PE 1
    # PE 0: cycles 1 to 3, then a cycle for the empty column. PE 1: cycle 1 for the empty column,
    # then 2 to 4. Evenly spread it would have been six entries over four PEs.
    assert both(weights, np.ones(2), FOUR) == 5
    cycles = simulate_product(weights, np.ones(2), machine=FOUR)
    assert float(cycles.balanced) == 1.5
    assert int(cycles.busiest) == 3


def test_a_full_queue_stops_the_broadcast() -> None:
    machine = EieMachine(pes=2, queue_depth=1)
    weights = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]])
    # cycle 0: column 0 is sent.
    # cycle 1: PE 0 has its first entry, PE 1 none; column 1 is sent.
    # cycle 2: PE 0 has its second. Column 1 waits for it: its queue is full, nothing is sent.
    # cycle 3: PE 0 has its first entry of column 1; column 2 is sent.
    # cycle 4: PE 0 has its second; column 2 waits, nothing is sent.
    # cycle 5: PE 0 has none in column 2; column 3 is sent.
    # cycle 6: PE 0 has none in column 3, PE 1 its first entry; cycle 7: its second.
    run = run_reference(weights, np.ones(4), machine=machine)
    assert both(weights, np.ones(4), machine) == 8
    assert run.stalls == 2
    assert both(weights, np.ones(4), EieMachine(pes=2, queue_depth=2)) < 8


def test_zero_activations_are_never_broadcast() -> None:
    weights = np.ones((8, 8))
    run = run_reference(weights, np.zeros(8), machine=FOUR)
    assert run.mac_cycles == 0
    assert both(weights, np.zeros(8), FOUR) == 2, "two groups of four were looked at"


def test_wrong_shapes_fail() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        simulate_product(np.ones((3, 4)), np.ones(3))
    with pytest.raises(ValueError, match="expected a vector"):
        detect(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"expected \(rows, columns\)"):
        stored_entries(np.ones(3))


# Properties

MACHINES = st.builds(
    EieMachine,
    pes=st.integers(1, 6),
    queue_depth=st.integers(1, 4),
    index_bits=st.integers(1, 3),
)
PRODUCTS = st.tuples(
    st.integers(0, 30), st.integers(0, 40), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9999)
)


def product(case: tuple[int, int, float, float, int]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns, weight_density, activation_density, seed = case
    random = np.random.default_rng(seed)
    weights = random.integers(1, 9, (rows, columns)) * (
        random.random((rows, columns)) < weight_density
    )
    return weights, random.integers(1, 9, columns) * (random.random(columns) < activation_density)


def cycles_of(case: tuple[int, int, float, float, int], machine: EieMachine) -> Cycles:
    return simulate_product(*product(case), machine=machine)


@settings(max_examples=150, deadline=None)
@given(case=PRODUCTS, machine=MACHINES)
def test_quick_counts_equal_the_machine(
    case: tuple[int, int, float, float, int], machine: EieMachine
) -> None:
    weights, activations = product(case)
    run = run_reference(weights, activations, machine=machine)
    cycles = simulate_product(weights, activations, machine=machine)
    np.testing.assert_array_equal(run.outputs, weights @ activations)
    assert int(cycles.total) == run.cycles
    assert float(cycles.balanced) * machine.pes == pytest.approx(run.mac_cycles)


@settings(max_examples=60, deadline=None)
@given(case=PRODUCTS, machine=MACHINES)
def test_never_under_what_bounds_it(
    case: tuple[int, int, float, float, int], machine: EieMachine
) -> None:
    cycles = cycles_of(case, machine)
    assert float(cycles.balanced) <= int(cycles.busiest) <= int(cycles.total)
    _, activations = product(case)
    assert int(cycles.total) >= np.count_nonzero(activations)


@settings(max_examples=60, deadline=None)
@given(case=PRODUCTS, machine=MACHINES)
def test_a_deeper_queue_is_never_slower(
    case: tuple[int, int, float, float, int], machine: EieMachine
) -> None:
    deeper = EieMachine(
        pes=machine.pes, queue_depth=machine.queue_depth + 1, index_bits=machine.index_bits
    )
    assert int(cycles_of(case, deeper).total) <= int(cycles_of(case, machine).total)


@settings(max_examples=60, deadline=None)
@given(case=PRODUCTS, machine=MACHINES)
def test_density_zero_multiplies_nothing(
    case: tuple[int, int, float, float, int], machine: EieMachine
) -> None:
    rows, columns, _, active, seed = case
    assert float(cycles_of((rows, columns, 0.0, active, seed), machine).balanced) == 0
    still = cycles_of((rows, columns, 1.0, 0.0, seed), machine)
    assert int(still.busiest) == 0
    assert int(still.total) == -(-columns // machine.pes), "looking is all that is left"


@settings(max_examples=60, deadline=None)
@given(case=PRODUCTS, machine=MACHINES)
def test_twice_the_elements_are_never_slower(
    case: tuple[int, int, float, float, int], machine: EieMachine
) -> None:
    """Each of twice as many PEs has some of the rows of one before, and every queue is as deep."""
    twice = EieMachine(
        pes=2 * machine.pes, queue_depth=machine.queue_depth, index_bits=machine.index_bits
    )
    assert int(cycles_of(case, twice).total) <= int(cycles_of(case, machine).total)


def test_random_products_are_like_random_matrices() -> None:
    random = np.random.default_rng(0)
    rows, columns, weights, active = 300, 400, 0.1, 0.4
    quick = [
        int(
            simulate_random_product(
                rows, columns, weight_density=weights, activation_density=active, random=random
            ).total
        )
        for _ in range(30)
    ]
    whole = []
    for _ in range(30):
        matrix = random.random((rows, columns)) < weights
        vector = np.zeros(columns)
        vector[random.permutation(columns)[: round(active * columns)]] = 1
        whole.append(int(simulate_product(matrix, vector).total))
    error = np.hypot(np.std(quick), np.std(whole)) / np.sqrt(30)
    assert abs(np.mean(quick) - np.mean(whole)) < 4 * error
