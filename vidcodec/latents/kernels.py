"""Compiled loops over flat arrays: decisions and states. Those of rANS are in `vidcodec.entropy.rans_kernels`.

Two quantisers share a step: Q0 reconstructs k to 2k steps, Q1 to 2k - sgn(k) (Q1 keeps zero). Which one a symbol
is under, and what state follows it, is a small machine driven by the parity of k: dependent quantisation, as in
VVC (4 states) and MPEG NNC (8 states); Schwarz et al., DCC 2019. Every run of symbols starts in the same one.

Machines come as `next_state` uint8 (states, 2), `use` uint8 (states,), the quantiser of a state, and `start`. Rates
are float32 (quantisers, 64, S + 2): bits of magnitude 0 .. S of each table, then those of an escape.
"""

from __future__ import annotations

import numpy as np

from vidcodec.entropy.compiling import compiled

Array = np.ndarray


@compiled
def decide_scalar(x: Array, weight: Array, index: Array, trade_off: float, rates: Array, symbols: Array) -> None:
    """RDOQ: the cheapest of floor, ceiling and zero, for each x on its own. x in steps; writes `symbols`."""
    last = rates.shape[2] - 1
    for t in range(x.size):
        a, i = abs(x[t]), index[t]
        best = weight[t] * a * a + trade_off * rates[0, i, 0]
        chosen = 0
        for k in range(max(int(a), 1), int(a) + 2):
            cost = weight[t] * (a - k) ** 2 + trade_off * rates[0, i, min(k, last)]
            if cost < best:
                best, chosen = cost, k
        symbols[t] = chosen if x[t] >= 0 else -chosen


@compiled
def decide_trellis(
    x: Array,
    weight: Array,
    index: Array,
    runs: Array,
    trade_off: float,
    next_state: Array,
    use: Array,
    start: int,
    rates: Array,
    symbols: Array,
) -> None:
    """Viterbi over each run. x in steps, |x| <= 65532; writes `symbols`.

    Candidates of a sample under each quantiser: zero, the two points around |x|, and the one below them.
    """
    states, last = next_state.shape[0], rates.shape[2] - 1
    longest = 1
    for r in range(runs.size - 1):
        longest = max(longest, runs[r + 1] - runs[r])
    branch = np.empty((longest, 4), np.int16)  # the best k by 2 * quantiser + parity
    survivor = np.empty((longest, states), np.uint8)  # 2 * state before + parity
    branch_cost = np.empty(4)
    cost, new_cost = np.empty(states), np.empty(states)
    for r in range(runs.size - 1):
        first, n = runs[r], runs[r + 1] - runs[r]
        cost[:] = np.inf
        cost[start] = 0.0
        for t in range(n):
            a, w, i = abs(x[first + t]), weight[first + t], index[first + t]
            for q in range(2):
                branch_cost[2 * q] = w * a * a + trade_off * rates[q, i, 0]
                branch[t, 2 * q] = 0
                branch_cost[2 * q + 1] = np.inf
                low = int((a + q) * 0.5)  # the last point that is not beyond a
                for k in range(max(low - 1, 1), low + 2):
                    b = 2 * q + (k & 1)
                    c = w * (a - (2 * k - q)) ** 2 + trade_off * rates[q, i, min(k, last)]
                    if c < branch_cost[b]:
                        branch_cost[b] = c
                        branch[t, b] = k
            new_cost[:] = np.inf
            for s in range(states):
                for parity in range(2):
                    c = cost[s] + branch_cost[2 * use[s] + parity]
                    after = next_state[s, parity]
                    if c < new_cost[after]:
                        new_cost[after] = c
                        survivor[t, after] = 2 * s + parity
            cost[:] = new_cost
        here = np.int64(np.argmin(cost))
        for t in range(n - 1, -1, -1):
            step = np.int64(survivor[t, here])
            here = step >> 1
            chosen = np.int32(branch[t, 2 * use[here] + (step & 1)])
            symbols[first + t] = chosen if x[first + t] >= 0 else -chosen


@compiled
def walk_states(symbols: Array, runs: Array, next_state: Array, start: int, states: Array) -> None:
    """The state each symbol is coded in; writes `states`."""
    for r in range(runs.size - 1):
        s = np.int64(start)
        for t in range(runs[r], runs[r + 1]):
            states[t] = s
            s = next_state[s, symbols[t] & 1]
