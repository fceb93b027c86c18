"""The shipped bank: complete tables, a fixed digest, and a script that gives the same ones again."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np

from vidcodec.entropy.bank import BYTE, GEOMETRIC, HEAVY, NORMAL, SPIKE_SLAB, TABLES, bank
from vidcodec.entropy.scales import LEVELS, MAX_SCALE, MIN_SCALE, index_to_scale

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_cdf_bank.py"
GOLDEN_DIGEST = "9209a8ee4c5591b6"


def test_every_table_is_a_whole_distribution() -> None:
    assert len(bank().counts) == TABLES
    for counts in bank().counts:
        assert counts.min() >= 1
        assert counts.astype(np.int64).sum() == 1 << 16


def test_tables_are_symmetric_but_for_the_centre() -> None:
    for index, counts in enumerate(bank().counts):
        if index != BYTE:
            cells = counts[:-1]
            assert len(cells) == 2 * bank().reach[index] + 1
            assert np.array_equal(cells, cells[::-1])
            assert cells.argmax() == len(cells) // 2


def test_digest_is_the_one_in_every_stream() -> None:
    assert bank().digest.hex() == GOLDEN_DIGEST


def test_script_builds_the_same_bank(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("build_cdf_bank", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(str(tmp_path / "bank.npz"))
    with np.load(tmp_path / "bank.npz") as built, np.load(SCRIPT.parents[1] / "vidcodec/entropy/bank.npz") as shipped:
        assert built.files == shipped.files
        for name in shipped.files:
            assert built[name].dtype == shipped[name].dtype
            assert np.array_equal(built[name], shipped[name])


def test_escapes_are_rare_and_reach_grows_with_the_spread() -> None:
    for index, counts in enumerate(bank().counts):
        if index != BYTE:
            assert counts[-1] <= 4 or bank().reach[index] == 1023
    for family in (NORMAL, GEOMETRIC, HEAVY):
        reach = bank().reach[family : family + 64]
        assert (np.diff(reach) >= 0).all()
        assert reach[-1] > 100
    assert bank().reach.max() <= 1023


def test_tables_charge_a_normal_its_entropy() -> None:
    for k in range(LEVELS):
        sigma, reach = index_to_scale(float(k)), int(bank().reach[NORMAL + k])
        edges = [0.5 * math.erfc(-(m - 0.5) / sigma / math.sqrt(2)) for m in range(-reach, reach + 2)]
        p = np.diff(edges).clip(1e-300)
        excess = float((p * (bank().bits[NORMAL + k][:-1] + np.log2(p))).sum())
        assert -1e-3 < excess < 0.02
    assert abs(index_to_scale(0.0) / MIN_SCALE - 1) < 1e-12
    assert abs(index_to_scale(63.0) / MAX_SCALE - 1) < 1e-12


def test_fixed_prior_charges_what_the_paper_says() -> None:
    bits, middle = bank().bits[SPIKE_SLAB], int(bank().reach[SPIKE_SLAB])
    assert abs(bits[middle] - 0.0053) < 0.004
    assert 8 < bits[middle + 1] < 10.5


def test_log_magnitudes_are_those_of_exact_integers() -> None:
    table = bank().log_magnitude.tolist()
    assert len(table) == 1024
    for m, value in enumerate(table):  # |value - 256 log2(1 + m)| <= 1/2, in whole numbers
        assert 2 ** (2 * value - 1) <= (1 + m) ** 512 <= 2 ** (2 * value + 1)
