"""The tangent of a feeder's power flow: what small changes of power do to voltages, currents and head power.

Around a solution the currents that loads and DER draw, I = conj(s(u)/u) over a branch with voltage u, change by
a du + b conj(du), and Kirchhoff's law Y dV + dI = 0 is a real linear system of twice the nodes. It is factorised once;
columns are its solutions, rows those of its transpose (reference: grid-model, section 3). Taps stand still.

Signs: one vector of elements, loads then DER; loads + = consumption, DER + = injection [W, var]. A gradient of a
quantity h is a complex row g over the nodes [1/V]: h changes by Re(g dV).
"""

from functools import cached_property

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array, vstack
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from derms.domain.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from derms.errors import ModelError
from derms.grid.layout import GROUND, V_DEAD_PU, FeederLayout, column
from derms.grid.network import Network

V_DEAD_V = 1.0
"""A part of the network in which no node has more is dead: no source reaches it."""
COUPLED_S = 1e-9
"""Admittance above which two nodes belong together; OpenDSS leaves 1e-12 where a switch is open."""
COLUMNS_AT_ONCE = 32
"""Right sides solved together: with more of them SuperLU's BLAS starts threads, which cost four times the work."""
PIVOT_SHARE = 0.1
"""A diagonal element stays the pivot down to this share of its column: admittances are nearly symmetric."""


class Tangent:
    """The Jacobian of a feeder at one solution, factorised.

    Parameters
    ----------
    network
        As it stood in that solution.
    v_v
        Its node voltages [V], shape (nodes,).
    load_w, load_var
        Loads as set, at nominal voltage [W, var], each of shape (loads,).
    der_w, der_var
        DER [W, var, + = injection], each of shape (ders,).
    dp_dv, dq_dv
        Slopes of volt-watt and volt-var that DER follow by themselves, by the voltage at their point [W/pu, var/pu],
        each of shape (ders,); None for none.

    Raises
    ------
    GridError
        Columns of another shape, or values that are not finite.
    ModelError
        The feeder has no tangent there: a voltage collapse, or a part without any admittance to ground.
    """

    def __init__(
        self,
        layout: FeederLayout,
        network: Network,
        v_v: ComplexArray,
        load_w: FloatArray,
        load_var: FloatArray,
        der_w: FloatArray,
        der_var: FloatArray,
        *,
        dp_dv: FloatArray | None = None,
        dq_dv: FloatArray | None = None,
    ) -> None:
        self.layout, self.network = layout, network
        nodes, loads, ders = len(layout.nodes), len(layout.loads), len(layout.ders)
        column("voltage", v_v.real, nodes)
        column("voltage", v_v.imag, nodes)
        self.v_v = v_v
        self.alive = _alive(network.y, v_v)
        """Nodes that a source reaches, shape (nodes,); the others do not change whatever happens."""
        consumed_w = np.concatenate([column("load power", load_w, loads), -column("DER power", der_w, ders)])
        consumed_var = np.concatenate([column("reactive load", load_var, loads), -column("DER var", der_var, ders)])
        self._find_branches()
        ends, ends_of, a, b = self._own_terms(consumed_w, consumed_var)
        if dp_dv is not None or dq_dv is not None:
            dp_dv, dq_dv = (np.zeros(ders) if slope is None else slope for slope in (dp_dv, dq_dv))
            slope = column("volt-watt slope", dp_dv, ders) - 1j * column("volt-var slope", dq_dv, ders)
            more = self._autonomous_terms(slope)
            ends, ends_of, a, b = (np.concatenate(pair) for pair in zip((ends, ends_of, a, b), more, strict=True))
        self._factorise(ends, ends_of, a, b)

    # --- what others ask for -----------------------------------------------------------------------------------------

    def columns(self, elements: IntArray) -> FloatArray:
        """Changes of the points' voltages [pu] per W, then per var, of some elements, shape (points, 2 x elements).

        Of loads per W and var as set, at nominal voltage.
        """
        return self.at_points(self.node_columns(elements))

    def node_columns(self, elements: IntArray) -> ComplexArray:
        """Changes of the node voltages [V] per W, then per var, of some elements, shape (nodes, 2 x elements)."""
        count = self.draws.shape[1] // 2
        return self.by_current(self.draws[:, np.concatenate([elements, count + elements])])

    def by_current(self, draws: csc_array) -> ComplexArray:
        """Changes of the node voltages [V] by further currents drawn from nodes [A], both of shape (nodes, k)."""
        entries = draws.tocoo()
        live = self.alive[entries.row]
        right = np.zeros((draws.shape[1], draws.shape[0]), dtype=np.complex128)
        np.subtract.at(right, (entries.col[live], entries.row[live]), entries.data[live])
        return self._solved(right, "N").T

    def at_points(self, changes_v: ComplexArray) -> FloatArray:
        """Changes of the points' voltages [pu] by those of the nodes [V], shape (nodes, k) to (points, k)."""
        changes: FloatArray = (self._all_points @ changes_v).real
        return changes

    def rows(self, gradients: csr_array) -> FloatArray:
        """Changes of quantities per W, then per var, of every element, by the adjoint, shape (rows, 2 x elements).

        Parameters
        ----------
        gradients
            Complex, shape (rows, nodes), as the methods below give them; they may be stacked.
        """
        price = self._solved(gradients.toarray().conj(), "T").conj().T
        price[~self.alive] = 0.0
        rows: FloatArray = -(self.draws.T @ price).real.T
        return rows

    def voltage_gradient(self, points: IntArray | None = None) -> csr_array:
        """Of the voltages at points [pu], all without argument; zero where a point is dead, shape (points, nodes)."""
        chosen = np.arange(len(self.layout.points)) if points is None else points
        ends = self.layout.point_node[chosen]
        base_v = self.layout.v_base_v[chosen]
        across = self._across(ends)
        living = np.where(np.abs(across) > V_DEAD_PU * base_v, across, 0.0)
        value = _direction(living).conj() / base_v
        return _spread(ends, value, np.arange(len(ends)), (len(ends), len(self.v_v))).tocsr()

    def current_gradient(self, currents: IntArray, direction: ComplexArray | None = None) -> csr_array:
        """Of currents [A], rows of `Network.current`, along a direction, shape (currents, nodes).

        The direction is a complex number of magnitude 1 for each, without argument that of the current itself: then
        it is the gradient of the magnitude, and zero where there is no current.
        """
        rows = self.network.current[currents]
        along = _direction(rows @ self.v_v) if direction is None else direction
        return csr_array(rows.multiply(along.conj()[:, None]))

    def head_gradient(self) -> csr_array:
        """Of the power into the head: P a, b, c [W], Q a, b, c [var]; zero on a phase not there, shape (6, nodes)."""
        network = self.network
        there = np.flatnonzero(network.head_rows >= 0)
        head = network.head_nodes[there]
        currents = network.current[network.head_rows[there]]
        voltage, current = self.v_v[head], currents @ self.v_v
        own = coo_array((current.conj(), (np.arange(len(there)), head)), shape=currents.shape)
        by_current = currents.multiply(voltage.conj()[:, None])
        phases = coo_array((np.ones(len(there)), (there, np.arange(len(there)))), shape=(3, len(there))).tocsr()
        active, reactive = phases @ (own + by_current), phases @ (-1j * own + 1j * by_current)
        return csr_array(vstack([active, reactive]))

    # --- how it is built ---------------------------------------------------------------------------------------------

    @cached_property
    def _all_points(self) -> csr_array:
        return self.voltage_gradient()

    def _solved(self, right: ComplexArray, trans: str) -> ComplexArray:
        """Solutions for right sides, shape (k, nodes): in memory a complex number is what the real system counts in."""
        solved = np.empty_like(right)
        for first in range(0, len(right), COLUMNS_AT_ONCE):
            some = slice(first, first + COLUMNS_AT_ONCE)
            solved[some].view(np.float64).T[:] = self._factors.solve(right[some].view(np.float64).T, trans=trans)
        return solved

    def _across(self, ends: IntArray) -> ComplexArray:
        """Voltages between pairs of nodes [V], shape (pairs, 2) to (pairs,)."""
        grounded = np.append(self.v_v, 0.0)  # GROUND is the last
        voltages: ComplexArray = grounded[ends[:, 0]] - grounded[ends[:, 1]]
        return voltages

    def _find_branches(self) -> None:
        """The branches of loads and DER that are alive, and the voltages across them."""
        layout = self.layout
        self._ends = layout.branch_node
        across = self._across(self._ends)
        reached = np.append(self.alive, True)[self._ends].all(axis=1) & (across != 0.0)
        self._ends = self._ends[reached]
        self._element = layout.branch_element[reached]
        self._share = layout.branch_share[reached]
        self._u = across[reached]
        ratio = np.abs(self._u) / layout.branch_nominal_v[reached]
        exponents = np.zeros((2, len(layout.loads) + len(layout.ders)))
        exponents[:, : len(layout.loads)] = layout.load_exponent
        self._exponent = exponents[:, self._element]
        self._scale = self._share * ratio**self._exponent
        """Branch power per element power, active and reactive, shape (2, branches)."""

    def _find_draws(self, elements: int) -> None:
        """Currents that a W, then a var, of each element draws from the nodes [A], shape (nodes, 2 x elements)."""
        sign = np.where(self._element < len(self.layout.loads), 1.0, -1.0)
        drawn = np.concatenate([sign * self._scale[0], -1j * sign * self._scale[1]]) / np.tile(self._u.conj(), 2)
        owner = np.concatenate([self._element, elements + self._element])
        ends = np.tile(self._ends, (2, 1))
        self.draws: csc_array = _spread(ends, drawn, owner, (2 * elements, len(self.v_v))).T.tocsc()

    def _own_terms(
        self, consumed_w: FloatArray, consumed_var: FloatArray
    ) -> tuple[IntArray, IntArray, ComplexArray, ComplexArray]:
        """Terms of the branches' own currents.

        conj(s) = P - jQ goes with |u|^alpha and |u|^beta, so with k = alpha P - j beta Q

            dI/du = k / (2 |u|^2),  dI/dconj(u) = (k/2 - conj(s)) / conj(u)^2
        """
        p_w, q_var = self._scale[0] * consumed_w[self._element], self._scale[1] * consumed_var[self._element]
        by_voltage = self._exponent[0] * p_w - 1j * self._exponent[1] * q_var
        a = by_voltage / (2.0 * np.abs(self._u) ** 2)
        b = (by_voltage / 2.0 - (p_w - 1j * q_var)) / self._u.conj() ** 2
        self._find_draws(len(consumed_w))
        return self._ends, self._ends, a, b

    def _autonomous_terms(self, slope: ComplexArray) -> tuple[IntArray, IntArray, ComplexArray, ComplexArray]:
        """Terms of DER that follow the voltage at their point: dI = -conj(ds/d|w|) Re(conj(w) dw)/|w| / conj(u)."""
        loads = len(self.layout.loads)
        at_der = self._across(self.layout.point_node[self.layout.der_point])
        of_der = np.append(np.zeros(loads, dtype=np.bool_), at_der != 0.0)[self._element]
        der = self._element[of_der] - loads
        point = self.layout.der_point[der]
        measured, w = self.layout.point_node[point], at_der[der]
        per_pu = -self._share[of_der] * slope[der] / self._u[of_der].conj()
        half = per_pu / (2.0 * np.abs(w) * self.layout.v_base_v[point])
        return self._ends[of_der], measured, half * w.conj(), half * w

    def _factorise(self, ends: IntArray, ends_of: IntArray, a: ComplexArray, b: ComplexArray) -> None:
        """Factorise Y dV + E (a E_of dV + b conj(E_of dV)) as a real system, real and imaginary parts in turn.

        With A what stands before dV and B what stands before conj(dV):
        [[Re(A + B), Im(B - A)], [Im(A + B), Re(A - B)]].
        """
        nodes = len(self.v_v)
        y = self.network.y.tocoo()
        living = self.alive[y.row] & self.alive[y.col]
        rows, cols = np.repeat(ends, 2, axis=1), np.tile(ends_of, 2)  # the four pairs of two ends and two ends
        sign = np.array([1.0, -1.0, -1.0, 1.0])
        kept = (rows != GROUND) & (cols != GROUND)
        a, b = (a[:, None] * sign)[kept], (b[:, None] * sign)[kept]
        dead = np.flatnonzero(~self.alive)
        row = np.concatenate([y.row[living], dead, rows[kept]])
        col = np.concatenate([y.col[living], dead, cols[kept]])
        before = np.concatenate([y.data[living], np.ones(len(dead)), a])
        conjugate = np.concatenate([np.zeros(len(before) - len(b)), b])
        plus, minus = before + conjugate, before - conjugate
        values = np.concatenate([plus.real, -minus.imag, plus.imag, minus.real])
        places = (
            np.concatenate([2 * row, 2 * row, 2 * row + 1, 2 * row + 1]),
            np.concatenate([2 * col, 2 * col + 1, 2 * col, 2 * col + 1]),
        )
        jacobian = coo_array((values, places), shape=(2 * nodes, 2 * nodes)).tocsc()
        try:
            self._factors = splu(
                jacobian,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=PIVOT_SHARE,
                options={"SymmetricMode": True},
            )
        except RuntimeError as error:  # SuperLU's word for a singular matrix
            raise ModelError(f"the feeder has no tangent at this solution: {error}") from error


def _alive(y: csc_array, v_v: ComplexArray) -> BoolArray:
    """Nodes of those parts of a network in which there is a voltage, shape (nodes,)."""
    live = np.abs(v_v) > V_DEAD_V
    if live.all():
        return live
    pairs = y.tocoo()
    near = np.abs(pairs.data) > COUPLED_S
    joined = coo_array((near[near], (pairs.row[near], pairs.col[near])), shape=y.shape)
    parts, part = connected_components(joined, directed=False)
    living: BoolArray = (np.bincount(part[live], minlength=parts) > 0)[part]
    return living


def _direction(values: ComplexArray) -> ComplexArray:
    """Complex numbers of magnitude 1 that point the same way; 0 of 0."""
    size = np.abs(values)
    directions: ComplexArray = values / np.where(size > 0.0, size, 1.0)
    return directions


def _spread(ends: IntArray, value: ComplexArray, owner: IntArray, shape: tuple[int, int]) -> coo_array:
    """Values at the first nodes of pairs and minus them at the second, added up by owner, shape (owners, nodes)."""
    node = ends.T.ravel()
    there = node != GROUND
    entries = (np.concatenate([value, -value])[there], (np.tile(owner, 2)[there], node[there]))
    return coo_array(entries, shape=shape)
