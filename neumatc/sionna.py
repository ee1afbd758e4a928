"""Blocks for Sionna's links: equalisers and precoders of whole resource grids from the exact ones of a few tones.

They stand where Sionna's blocks of the same names stand: another import, the same call. Each example's matrices are
fitted over symbols and subcarriers, all examples in common pieces (`fit_many`), from the pieces of the call before
(``fit(start=)``), and evaluated on the whole grid. What a map would not make cheaper, or not well enough, is computed
exactly at all tones: small grids, small matrices, and those that do not vary smoothly from tone to tone. Equalisers of
streams that are all desired solve the system of the streams then; they form no filter, and factorise no covariance of
the antennas as Sionna's LMMSE does. All else, and what carries gradients or has no solution, is left to Sionna's own
block. Of a channel that stands still blocks take one system a tone, unless maps are asked for. ``block.report``
says what the last call did.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from neumatc import checks, linalg, threads
from neumatc.advice import FitWarning
from neumatc.families import ParametricMatrix
from neumatc.fitting import fit_many
from neumatc.model import Surrogate
from neumatc.operations import Operation
from neumatc.pieces import Pieces
from neumatc.problem import Problem
from neumatc.receivers import Equaliser
from neumatc.spectral import SVD
from neumatc.wireless.tr38901 import from_sionna

__all__ = ["GridReport", "LMMSEEqualizer", "RZFPrecodedChannel", "RZFPrecoder", "SVDPrecodedChannel", "ZFEqualizer"]

_LMMSE, _ZF, _RZF, _RZF_PRECODER, _PRECODED = from_sionna(
    "sionna.phy.ofdm", "LMMSEEqualizer", "ZFEqualizer", "RZFPrecodedChannel", "RZFPrecoder", "PrecodedChannel"
)
(_expanded,) = from_sionna("sionna.phy.utils", "expand_to_rank")
# When a map is tried: operations of all exact solutions below which a fit, which takes some ten milliseconds, cannot
# pay; operations of one below which a map of it takes as long; and most exact solves of the fit, as a part of the
# points, beyond which a map saves little.
Bar = tuple[float, float, float]
# Where the other way is Sionna's block, which factorises a matrix of the antennas for each point.
_SLOW: Bar = (3e8, 0.0, 0.25)
# Where it is eigenvectors of a Gram matrix for each point: a solve of the fit takes as long as some 20 of these.
_VECTORS: Bar = (3e8, 0.0, 0.02)
# Where it is a system of the streams for each point, of which the precoders are the solution: the map's product, and
# what comes behind it, take nearly as long.
_PRECODING: Bar = (1e9, 1e4, 0.01)
# Where the symbols are the solution, so that no filter is formed. A solve of the fit takes as long as some 25 of these,
# and a map's product nearly half of all.
_EQUALISING: Bar = (1e9, 5e3, 0.01)
# Where maps are asked for.
_ASKED: Bar = (0.0, 0.0, 0.25)
# Standard deviations of what a symbol has beside it that rounding may be: else systems are solved in double precision.
_FINE = 0.01
# Relative error of precoders that rounding may cost: what else is let through to other streams is as large.
_LEAK = 1e-4
# Why Sionna's block computes what exact solutions were tried for.
_NONE = "by Sionna's block, since some tones have no exact solution in this precision"
# What a call takes beside the operations of each solution of a batch.
_CALL = 2e4
# Calls without a trial of a map after one that was given up: one, then twice as many each time, up to so many.
_LONGEST_WAIT = 64
# Numbers of filters, or of channels and signals, that a run of tones has, 16 MB in single precision: of fewer the calls
# take longer than what they compute.
_CHUNK = 2**21
# Tones that follow each other, and the axes of their grid.
Run = tuple[slice, list[Tensor]]
# Numbers of N channels, and of symbols and of tones, (B,) each, to matrices (N, B, m, n).
Matrices = Callable[[list[int], Tensor, Tensor], Tensor]
# Of a run, precoders as rows (T, F, K, M) of norm 1, conjugated, of all T symbols or of one for all.
Precoders = Callable[[Run], Tensor]


@dataclass(frozen=True)
class GridReport:
    """What the last call of a block did.

    Attributes:
        exact: Why all tones were solved exactly, or empty.
        examples: Resource grids, receivers or transmitters counted one by one.
        tones: Points of each.
        solves: Exact solves for each of them.
        pieces: Pieces of their map.
        residual: The largest residual at fresh tones.
        seconds: Time of the fits.
    """

    exact: str = ""
    examples: int = 0
    tones: int = 0
    solves: int = 0
    pieces: int = 0
    residual: float = math.nan
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.exact:
            return f"exact{f' at all {self.tones} tones' * bool(self.tones)}: {self.exact}"
        return (
            f"{self.examples} maps of {self.tones} tones from {self.solves} exact solves each, in {self.pieces} "
            f"piece(s), residual {self.residual:.1e}"
        )


class _Grids:
    """Maps over resource grids, whose pieces are taken over from call to call.

    Args:
        tol: Tolerance of the fits.
        method: ``"auto"``, or ``"map"`` or ``"exact"``: take these without asking whether they are faster.
    """

    def __init__(self, tol: float, method: str):
        self.tol = checks.number("tol", tol, above=0, below=1)
        self.method = checks.choice("method", method, ("auto", "map", "exact"))
        self.start: Surrogate | None = None
        self.wait = self.left = 0
        self.report = GridReport()

    def fitted(
        self,
        at: Matrices,
        examples: int,
        operation: Operation,
        symbols: int,
        tones: Tensor,
        channel: Tensor,
        bar: Bar,
    ) -> list[Surrogate] | None:
        """Fit each example; None where no map pays, or none is to be had. The report has the reason.

        Args:
            at: The matrices of examples.
            examples: How many there are.
            operation: What is computed of them.
            symbols: How many.
            tones: Their places on the frequency axis, rising, shape (N,), on the device of the matrices.
            channel: Of which the matrices are made.
            bar: When a map is tried, where maps are not asked for.
        """
        least, one, share = _ASKED if self.method == "map" else bar
        self.report = GridReport(examples=examples, tones=symbols * len(tones))
        if self.report.tones == 1 or self.method == "exact":
            return self.give_up("one tone" if self.report.tones == 1 else "that is asked for")
        try:
            problems = [Problem(_Example(at, 0, symbols, tones), operation)]
            work = problems[0].work
            if work < one or examples * self.report.tones * (work + _CALL) < least:
                return self.give_up("that takes less time than a map")
            if self.left:
                self.left -= 1
                return self.give_up("the last map that was tried was given up")
            if not (channel.sum().isfinite() or channel.isfinite().all()):  # a sum is faster, but may overflow
                return self.give_up("the channel has NaN or Inf, and a map would hide where")
            problems += [Problem(_Example(at, i, symbols, tones), operation) for i in range(1, examples)]
            start = self.start if self.start is not None and self.start.box == problems[0].family.box else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FitWarning)  # it is in the report
                found = fit_many(problems, tol=self.tol, method=Pieces(share=share), start=start, progress=False)
        except ValueError as error:  # NaN at all tones that are tried, or a shape without such filters
            return self.give_up(str(error))
        judged = self._judged(found)
        self.left = self.wait = 0 if judged or self.method == "map" else min(max(1, 2 * self.wait), _LONGEST_WAIT)
        return judged

    def _judged(self, found: list[Surrogate]) -> list[Surrogate] | None:
        """Return the maps if they meet the tolerance, and report them; the next call begins with them."""
        reports = [surrogate.report for surrogate in found]
        unmet = next((report for report in reports if not report.met), None)
        self.start = found[0] if unmet is None else None
        if unmet is not None:
            return self.give_up(f"the tolerance is not met, {unmet.unmet[0] if unmet.unmet else unmet.stop_reason}")
        self.report = replace(
            self.report,
            solves=max(report.exact_solves for report in reports),
            pieces=max(len(surrogate.pieces) for surrogate in found),
            residual=max((entry.residual_max for r in reports for entry in r.rounds[-1:]), default=math.nan),
            seconds=sum(report.seconds for report in reports),
        )
        return found

    def give_up(self, why: str) -> None:
        """Say why there is no map."""
        self.report = replace(self.report, exact=why)


def _axes(symbols: int, tones: Tensor) -> list[Tensor]:
    """Return the axes of a grid that have more than one value: numbers of symbols, places of tones."""
    time = torch.arange(symbols, dtype=torch.float64, device=tones.device)
    return [axis for axis in (time, tones.double()) if len(axis) > 1]


class _Example(ParametricMatrix):
    """The matrices of one example on the grid of symbols and tones."""

    def __init__(self, at: Matrices, number: int, symbols: int, tones: Tensor):
        self.at, self.number, self.sizes = at, number, (symbols, len(tones))
        axes = _axes(symbols, tones)
        lower, upper = (torch.stack([axis[k] for axis in axes]) for k in (0, -1))
        super().__init__(lambda p: at([number], *self._numbers(p))[0], lower, upper, grid=axes)

    def _numbers(self, p: Tensor) -> list[Tensor]:
        """Return the numbers of symbols and of tones at p."""
        at = [torch.searchsorted(axis, x.contiguous()) for axis, x in zip(self.box.ticks, p.T)]
        return [at[k] if size > 1 else torch.zeros_like(at[0]) for k, size in zip((0, -1), self.sizes)]

    def _at_once(self, families: Sequence[_Example]) -> Callable[[Tensor], Tensor]:
        numbers = [family.number for family in families]
        return lambda p: self.at(numbers, *self._numbers(p)).transpose(0, 1)


def _parts(tones: Tensor, symbols: int, numbers: int) -> list[Run]:
    """Return runs of tones of some ``_CHUNK`` numbers each, and their grids."""
    axes, size = _axes(symbols, tones), max(1, _CHUNK // (symbols * numbers))
    if len(tones) == 1:
        return [(slice(0, 1), axes)]
    *time, places = axes
    runs = [slice(k, min(k + size, len(tones))) for k in range(0, len(tones), size)]
    return [(run, [*time, places[run]]) for run in runs]


def _at(channel: Tensor, run: Run) -> Tensor:
    """Return channels (m, n, T, F) at the tones of a run, shape (T, F, m, n)."""
    return channel[..., run[0]].permute(2, 3, 0, 1)


def _in_runs(
    part: Callable[[int, Run], tuple[Tensor, ...]], count: int, runs: Sequence[Run], alone: bool
) -> list[Tensor]:
    """Call a function for each of some channels and each run of tones, and join what it returns.

    Args:
        part: Called with the number of a channel and a run; returns tensors with the tones along axis 1.
        count: How many channels.
        runs: Of `_parts`.
        alone: Whether in this thread, one after the other; gradients are followed only so.

    Returns:
        Tensors of shape (channels, ..., tones, ...).
    """
    jobs = [(i, run) for i in range(count) for run in runs]
    done = [part(*job) for job in jobs] if alone else threads.each(lambda job: part(*job), jobs)
    return [torch.stack([torch.cat(own, dim=1) for own in zip(*[iter(x)] * len(runs))]) for x in zip(*done)]


class _Mapped:
    """Mixed into Sionna's blocks: ``tol``, ``method``, and the report of the last call."""

    def __init__(self, *args: object, tol: float = 0.05, method: str = "auto", **kwargs: object):
        super().__init__(*args, **kwargs)
        self._grids = _Grids(tol, method)

    @property
    def report(self) -> GridReport:
        """What the last call did."""
        return self._grids.report

    def _followed(self, **given: object) -> bool:
        """Whether gradients or a compiler follow what a map does not; then the report says so."""
        names = [name for name, x in given.items() if isinstance(x, Tensor) and checks.followed(x)]
        if names:
            self._grids.report = GridReport(exact=f"gradients or a compiler follow {' and '.join(names)}")
        return bool(names)


class _Equalizer(_Mapped):
    kind = "lmmse"

    def call(self, y: Tensor, h_hat: Tensor, err_var: Tensor, no: Tensor) -> tuple[Tensor, Tensor]:
        """Equalise: see Sionna's block of this name.

        Args:
            y, h_hat, err_var, no: As there.

        Returns:
            x_hat and no_eff, as there.
        """
        err_var, no = (torch.as_tensor(x, dtype=self.dtype, device=h_hat.device) for x in (err_var, no))
        y, h_hat = (x.expand(max(len(y), len(h_hat)), *x.shape[1:]) for x in (y, h_hat))
        if not self._followed(h_hat=h_hat, err_var=err_var, no=no):
            power = self._power(y.shape[:3], h_hat, err_var, no)
            still = self._grids.method != "map" and _still(h_hat) and _still(power)
            found = self._equalised(y, *(x[..., :1, :] if still else x for x in (h_hat, power)))
            if found is not None:
                return found
        return super().call(y, h_hat, err_var, no)

    def _power(self, shape: tuple[int, int, int], h_hat: Tensor, err_var: Tensor, no: Tensor) -> Tensor:
        """Return the power of noise, to which the variance of the estimates of all streams comes.

        Shape (examples, receivers, antennas, symbols, tones), or 1 in place of a number along which it is the same.

        Args:
            shape: Examples, receivers, antennas.
            h_hat, err_var, no: As for `call`.
        """
        errors = err_var.reshape((1,) * (h_hat.ndim - err_var.ndim) + err_var.shape)
        alike = math.prod(n for i, n in enumerate(h_hat.shape[3:5]) if errors.shape[3 + i] == 1)
        power = _expanded(no, 3, -1).broadcast_to(shape)[..., None, None] + errors.sum(dim=(3, 4)) * alike
        for dim in (2, 3, 4):
            first = power.narrow(dim, 0, 1)
            power = first if (power == first).all() else power
        return power

    def _equalised(self, y: Tensor, h_hat: Tensor, power: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what `call` does, by maps or exactly, or None where Sionna's block is to compute it.

        Args:
            y: As for `call`.
            h_hat, power: As for `call` and of `_power`, of all symbols or of one for all.
        """
        tones = self._tones(y.device)
        (count, receivers), symbols, each = y.shape[:2], y.shape[3], h_hat.shape[5]
        channels = [channel.flatten(1, 2) for channel in h_hat.flatten(0, 1)]
        desired, undesired = (
            ind.view(receivers, -1).repeat(count, 1) % channels[0].shape[1]
            for ind in (self._detection_desired_ind, self._detection_undesired_ind)
        )
        maps, scale = self._fitted(channels, power.flatten(0, 1), desired, undesired, h_hat)
        if maps is not None:
            numbers = y.shape[2] * maps[0].maps[0].shape[0]
            ways = [partial(_by_map, *own) for own in zip(maps, scale, strict=True)]
        elif undesired.numel() or not (power > 0).all():  # a covariance to factorise, as in Sionna's, or no noise
            return None
        else:
            numbers = y.shape[2] * (channels[0].shape[1] + symbols // each)
            ways = [partial(self._exactly, *own) for own in zip(channels, power.flatten(0, 1), desired, strict=True)]
        runs, received = _parts(tones, each, numbers), self._removed_nulled_scs(y).to(self.cdtype).flatten(0, 1)

        def part(i: int, run: Run) -> tuple[Tensor, Tensor]:
            own = received[i][..., run[0]]
            # What is the same for all symbols serves them at once.
            own = own.permute(2, 1, 0) if each == 1 else own.permute(1, 2, 0).flatten(0, 1)[:, None]
            x, v = ways[i](run, own.contiguous())
            v = v.view(each, -1, v.shape[1])
            return x.transpose(0, 1) if each == 1 else x.view(*v.shape), v.expand(symbols, -1, -1)

        alone = y.is_cuda or checks.followed(y) or maps is not None
        x_hat, no_eff = (x.unflatten(0, (count, receivers)) for x in _in_runs(part, len(ways), runs, alone))
        no_eff = no_eff.to(self.dtype).clamp_min(torch.finfo(self.dtype).tiny)
        if not no_eff.isfinite().all():  # an exact filter that does not exist is NaN
            return self._grids.give_up(f"{self.report.exact}; {_NONE}")
        return self._streams(x_hat), self._streams(no_eff)

    def _exactly(self, channel: Tensor, power: Tensor, desired: Tensor, run: Run, y: Tensor) -> tuple[Tensor, Tensor]:
        """Equalise as `_by_map` does, by exact solutions; NaN where there is none.

        Args:
            channel: Shape (antennas, streams, symbols, tones).
            power: Of `_power`, for this channel.
            desired: Numbers of the streams.
            run, y: As for `_by_map`.
        """
        H = _at(channel, run).to(self.cdtype).contiguous()
        s = power[..., run[0] if power.shape[2] > 1 else slice(None)].permute(1, 2, 0)
        s = s.expand(*H.shape[:2], -1).flatten(0, 1) if s.shape[:2].numel() > 1 else s[0]
        H = H.flatten(0, 1)
        H = H if (desired.diff() == 1).all() else H[:, :, desired]
        x, v, fine = _solved(H, y, s, self.kind == "zf")
        if self.dtype == torch.float32 and not fine.all():
            x, v, _ = _solved(H.to(torch.complex128), y.to(torch.complex128), s.double(), self.kind == "zf")
        return x.to(y), v.to(s)

    def _fitted(
        self, channels: Sequence[Tensor], power: Tensor, desired: Tensor, undesired: Tensor, h_hat: Tensor
    ) -> tuple[list[Surrogate] | None, Tensor]:
        """Fit the filters of channels, each with its power; None where no map pays.

        Returns:
            The maps, and by what the antennas' signals are to be divided for them, shape (channels, antennas).
        """
        antennas, _, symbols, tones = channels[0].shape
        # Zero forcing does not weigh antennas by their noise.
        one = undesired.numel() == 0 and power[0].numel() == (power.shape[1] if self.kind == "lmmse" else 1)
        scale = power[..., 0, 0] if one else power.mean(dim=(1, 2, 3))[:, None]
        scale = scale.expand(-1, antennas).sqrt()

        own = power.expand(-1, antennas, symbols, tones)

        def at(chosen: list[int], t: Tensor, f: Tensor) -> Tensor:
            def streams(which: Tensor) -> Tensor:
                H = torch.stack([channels[i][:, which[i][:, None], t, f] for i in chosen])
                return H.permute(0, 3, 1, 2).to(self.cdtype) / scale[chosen][:, None, :, None]

            if one:
                return streams(desired)
            others = streams(undesired)
            number = torch.tensor(chosen, device=own.device)[:, None]
            level = own[number, :, t, f] / scale[chosen][:, None].square()  # (N, B, antennas)
            R = others @ others.mH + torch.diag_embed(level).to(others)
            return torch.cat([streams(desired), R], dim=3)

        operation = Equaliser(self.kind, 1.0 if one else "beside")
        bar, places = _SLOW if undesired.numel() else _EQUALISING, self._tones(h_hat.device)
        return self._grids.fitted(at, len(channels), operation, symbols, places, h_hat, bar), scale

    def _tones(self, device: torch.device) -> Tensor:
        """Return the places of the subcarriers that are sent."""
        return torch.as_tensor(self._resource_grid.effective_subcarrier_ind, device=device)

    def _streams(self, x: Tensor) -> Tensor:
        """Bring (examples, receivers, symbols, tones, streams) to (examples, transmitters, streams, data symbols)."""
        management = self._stream_management
        x = x.permute(1, 4, 2, 3, 0).flatten(0, 1)[self._stream_ind]
        x = x.unflatten(0, (management.num_tx, management.num_streams_per_tx)).flatten(2, 3)
        at = self._data_ind[..., None].expand(-1, -1, -1, x.shape[3])
        return torch.gather(x, 2, at).permute(3, 0, 1, 2)


def _by_map(surrogate: Surrogate, scale: Tensor, run: Run, y: Tensor) -> tuple[Tensor, Tensor]:
    """Equalise by the filters of a map at the points of a run.

    Args:
        surrogate: The map.
        scale: By what signals are to be divided, shape (M,).
        run: Of tones, see `_parts`.
        y: Signals, shape (n, c, M): of n points of the grid c rows each.

    Returns:
        Symbols (n, c, K), and variances (n, K).
    """
    X, v = surrogate.grid(*run[1])
    return (y / scale) @ X.reshape(-1, *X.shape[-2:]).mT, v.reshape(-1, v.shape[-1])


def _solved(H: Tensor, y: Tensor, s: Tensor, zf: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Equalise by the exact P = (H^H H + s I)^-1, of zero forcing with s = 0 in it; NaN where there is none.

    Symbols are the rows of P H^H y over their gains, those of the diagonal of P H^H H, or 1.

    Args:
        H: Shape (n, M, K).
        y: Signals, shape (n, c, M).
        s: Powers of the noise: shape (n, M), (n, 1) or (1, 1).
        zf: Whether to force zeros.

    Returns:
        Symbols (n, c, K), variances (n, K), and whether rounding is below ``_FINE``, shape (n,).
    """
    if s.shape[1] > 1 and not zf:
        H, y, s = H * s.rsqrt()[:, :, None], y * s.rsqrt()[:, None], torch.ones_like(s[:, :1])
    gram, one = linalg.gram(H), s.shape[1] == 1
    P, rounding = _inverted(gram, torch.zeros_like(s[:, :1]) if zf else s)
    terms = P * gram.mT
    gain = torch.ones_like(s[:, :1]) if zf else terms.real.sum(dim=2)
    x = y @ H.conj() @ P.conj() / gain[:, None]  # P is Hermitian
    v = s * P.diagonal(dim1=1, dim2=2).real / gain if one else ((P @ H.mH).abs().square() @ s[:, :, None])[:, :, 0]
    # Of a weak stream beside strong ones the terms of its gain cancel.
    sure = zf | (rounding[:, None] * terms.abs().sum(dim=2) <= _FINE * gain).all(dim=1)
    return x, v, sure & (rounding <= _FINE * v.amin(dim=1).clamp_max(1).sqrt())


def _inverted(gram: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Return (G + s I)^-1, NaN where there is none, and an estimate of the relative error.

    Rows are brought to a diagonal of ones, so that streams of very different strength are not taken for dependent ones.

    Args:
        gram: G, shape (n, K, K).
        s: Shape (n, 1) or (1, 1).
    """
    one, limits = linalg.identity_like(gram), torch.finfo(s.dtype)
    system, least = gram + s[:, :, None] * one, gram.diagonal(dim1=1, dim2=2).real.amin(dim=1)
    sizes = system.diagonal(dim1=1, dim2=2).real.rsqrt()[:, :, None]
    system = sizes * system * sizes.mT
    P, _ = linalg.solve_positive(system, one)
    error = limits.eps * linalg.norm(system) * linalg.norm(P)
    # Squares that vanish in this precision spoil what is computed of them.
    return sizes * P * sizes.mT, torch.where(least > limits.tiny / limits.eps, error, torch.inf)


def _still(x: Tensor) -> bool:
    """Whether x (..., symbols, tones) is the same at all symbols."""
    if x.dtype == torch.complex64:  # bits are compared in half the time
        x = x.resolve_conj().resolve_neg().view(torch.int64)
    first = x[..., :1, :]
    return not x.stride(-2) or bool((x[..., -1:, :] == first).all() and torch.equal(x, first.expand_as(x)))


class LMMSEEqualizer(_Equalizer, _LMMSE):
    r"""Sionna's ``LMMSEEqualizer``, from the exact filters of a few tones and symbols of each slot.

    Unbiased filters and their variances ``no_eff`` are fitted to ``tol`` (`Equaliser`): at most ``tol ** 2`` of the
    ratio of signal to interference and noise is lost on 99 % of the tones, 0.011 dB for 0.05; a single tone may lose
    more. The ratio is that of the channel that the block is given: what errors of h_hat cost comes on top. Noise may
    differ from antenna to antenna, from tone to tone by ``err_var``, and be coloured by streams that are not desired.
    Gradients pass through y; where they are asked for h_hat, err_var or no, Sionna's block computes all.

    Exact equalisers are the other choice, and often the faster one. Where no stream is undesired they are
    :math:`\hat x = (H^H H + s I)^{-1} H^H y`, each row over its gain, with the noise s, or for H and y in units of the
    noise of each antenna. That forms no filter, and subtracts nothing in ``no_eff``, which Sionna 2.2.0 takes as
    1 / d - 1 with a d near 1: of strong signals, as at 50 dB an antenna, single precision leaves nothing of that. Where
    rounding may be more than a hundredth of the standard deviation of what a symbol has beside it, they are solved in
    double precision. Where streams are undesired the exact ones are Sionna's own.

    Args:
        resource_grid, stream_management, whiten_interference, precision, device: As for Sionna's block.
        tol: Tolerance of the fits.
        method: ``"auto"`` takes maps where they are expected to be faster: of systems that are large enough, and from
            few enough tones. After a map was given up it solves exactly for some calls, and tries again. ``"map"``
            takes maps over all tones and symbols, also of a channel that stands still, wherever the tolerance is met
            from a quarter of them; checks come on top. ``"exact"`` takes none.

    Attributes:
        report: What the last call did, a `GridReport`.
    """


class ZFEqualizer(_Equalizer, _ZF):
    """Sionna's ``ZFEqualizer``, from the exact filters of a few tones and symbols of each slot.

    The ratio of signal to interference and noise is that of exact filters to ``tol``, above or below, on 99 % of the
    tones, of the channel that the block is given.

    Args:
        resource_grid, stream_management, precision, device: As for Sionna's block.
        tol: As for `LMMSEEqualizer`.
        method: As for `LMMSEEqualizer`.

    Attributes:
        report: What the last call did, a `GridReport`.
    """

    kind = "zf"


class _UnsolvedError(Exception):
    """Some tones have no exact precoder in this precision."""


class _Precoder(_Mapped):
    def _channels(self, h: Tensor) -> list[Tensor]:
        """Return the channels (K, M, T, F) from each transmitter to the antennas that it serves, of each example."""
        found = []
        for t, served in enumerate(self._precoding_ind_tensor.tolist()):
            own, first = h[:, :, :, t], served[0]
            row = served == list(range(first, first + len(served)))
            found.append((own[:, first : first + len(served)] if row else own[:, served]).flatten(1, 2))
        return [own for example in zip(*found, strict=True) for own in example]

    def _mapped(
        self, h: Tensor, channels: list[Tensor], operation: Operation, factor: int, level: Tensor | None = None
    ) -> list[Precoders] | None:
        """Return precoders by maps, or None where no map pays.

        Args:
            h: Channels, of which these are.
            channels: Of `_channels`.
            operation: A factor of it has the precoders as rows, up to their norms and conjugation.
            factor: Which.
            level: Of filters of the dual uplink, by what its channels are to be divided, shape (channels,).
        """
        *_, symbols, size = h.shape

        def at(chosen: list[int], t: Tensor, f: Tensor) -> Tensor:
            H = torch.stack([channels[i][:, :, t, f] for i in chosen]).permute(0, 3, 1, 2).to(self.cdtype)
            return H if level is None else H.mH.resolve_conj() / level[chosen][:, None, None, None]

        def way(surrogate: Surrogate, run: Run) -> Tensor:
            rows = surrogate.grid(*run[1][-surrogate.box.dimension :])[factor]  # of one symbol only tones
            return _unit(rows.reshape(-1, run[0].stop - run[0].start, *rows.shape[-2:]))

        tones, bar = torch.arange(size, device=h.device), _VECTORS if level is None else _PRECODING
        maps = self._grids.fitted(at, len(channels), operation, symbols, tones, h, bar)
        return maps and [partial(way, surrogate) for surrogate in maps]

    def _regularised(self, h: Tensor, alpha: Tensor) -> list[Precoders] | None:
        """Return the precoders of RZF for each example and transmitter, or None where Sionna's block computes all.

        Args:
            h: Channels as Sionna's blocks are given them, of all symbols or of one for all.
            alpha: Regularisation, shape (examples, transmitters, T, F), or 1 in place of any of these.
        """
        alpha = alpha.expand(len(h), h.shape[3], *h.shape[-2:]).flatten(0, 1)
        channels, level = self._channels(h), alpha[:, 0, 0]
        self._grids.report = GridReport(examples=len(channels), tones=alpha[0].numel())
        if len(channels[0]) != self._stream_management.num_streams_per_tx:
            return self._grids.give_up("streams and antennas of the receivers are not as many")
        if not (alpha >= 0).all():
            return self._grids.give_up("the regularisation is below zero, or NaN")
        zf, ways = not bool(level.any()), None
        if (alpha != level[:, None, None]).any() or not (zf or level.all()):
            self._grids.give_up("the regularisation differs from tone to tone, or is zero for some")
        else:
            # RZF is the LMMSE filter of the uplink with the channel h^H, and both scale rows at will.
            scale = torch.ones_like(level) if zf else level.sqrt()
            ways = self._mapped(h, channels, Equaliser("zf" if zf else "lmmse"), 0, scale)

        def exactly(channel: Tensor, alpha: Tensor, run: Run) -> Tensor:
            H = _at(channel, run).to(self.cdtype).contiguous()
            flat, level = H.flatten(0, 1), alpha[:, run[0]].flatten()
            rows, fine = _rzf(flat, level)
            if self.dtype == torch.float32 and not fine.all():
                rows = _rzf(flat.to(torch.complex128), level.double())[0].to(H)
            if not rows.sum().isfinite():
                raise _UnsolvedError
            return rows.unflatten(0, H.shape[:2])

        return ways or [partial(exactly, *own) for own in zip(channels, alpha, strict=True)]

    @contextmanager
    def _tried(self) -> Iterator[None]:
        """Go on where there is no exact precoder, and say so."""
        try:
            yield
        except _UnsolvedError:
            self._grids.give_up(f"{self.report.exact}; {_NONE}")

    def _stands(self, *given: Tensor) -> bool:
        """Whether what is given (..., T, F) is to be taken once for all symbols."""
        return self._grids.method != "map" and all(map(_still, given))

    def _each(
        self, ways: list[Precoders], h: Tensor, followed: Tensor, of: Callable[..., tuple[Tensor, ...]]
    ) -> list[Tensor]:
        """Return what a function makes of the precoders, shape (examples, transmitters, T, tones, ...).

        Args:
            ways: Precoders of each example and transmitter.
            h: Channels as Sionna's blocks are given them.
            followed: What else gradients may be asked for.
            of: Called with the numbers of the example and the transmitter, a run, and precoders; returns tensors with
                the tones along axis 1.
        """

        def part(i: int, run: Run) -> tuple[Tensor, ...]:
            return of(*divmod(i, h.shape[3]), run, ways[i](run))

        alone = h.is_cuda or checks.followed(h) or checks.followed(followed) or not self.report.exact
        return [x.unflatten(0, (len(h), -1)) for x in _in_runs(part, len(ways), _runs(h), alone)]

    def _precoded(self, ways: list[Precoders], h: Tensor, tx_power: Tensor, symbols: int, turn: bool = False) -> Tensor:
        """Return the effective channel of precoders.

        Args:
            ways: Of each example and transmitter.
            h: Channels as Sionna's blocks are given them, of all symbols or of one for all.
            tx_power: Power, as these are given it.
            symbols: How many.
            turn: Whether phases are to go on from run to run, and at the first tone from symbol to symbol.
        """
        transmitters, size = h.shape[3], h.shape[-1]
        power = _expanded(tx_power, 5, -1).sqrt().to(self.dtype).expand(len(h), transmitters, -1, -1, size)

        def of(i: int, t: int, run: Run, rows: Tensor) -> tuple[Tensor, ...]:
            own = power[i, t][..., run[0]].permute(1, 2, 0)[:, :, None]
            return _received(h, i, t, run).to(rows) @ rows.mH * own, *([rows[:, [0, -1]]] * turn)

        out, *ends = self._each(ways, h, tx_power, of)
        if turn:
            first, last = ends[0][:, :, :, ::2], ends[0][:, :, :, 1::2]
            phases = _onward(first, last) * _onward(first[:, :, :, 0], first[:, :, :, 0])[:, :, :, None]
            out = out * phases[:, :, :, torch.arange(size) // _runs(h)[0][0].stop, None]
        return self._shaped(out, h, symbols)

    def _shaped(self, out: Tensor, h: Tensor, symbols: int) -> Tensor:
        """Bring (examples, transmitters, T, F, rows, K) to the shape of an effective channel."""
        out = out.unflatten(4, h.shape[1:3]).permute(0, 4, 5, 1, 6, 2, 3)
        return self._remove_nulled_scs(out.expand(*[-1] * 5, symbols, -1))


def _runs(h: Tensor) -> list[Run]:
    """Return runs of tones for channels as Sionna's precoders are given them."""
    return _parts(torch.arange(h.shape[-1], device=h.device), h.shape[-2], h.shape[1:3].numel() * h.shape[4])


def _received(h: Tensor, example: int, transmitter: int, run: Run) -> Tensor:
    """Return the channels of a transmitter at the tones of a run, shape (T, F, antennas of all receivers, M)."""
    return h[example, :, :, transmitter, ..., run[0]].permute(3, 4, 0, 1, 2).flatten(2, 3)


def _unit(rows: Tensor) -> Tensor:
    """Divide rows by their norms, but those that are zero."""
    size = linalg.norm(rows.reshape(-1, rows.shape[-1])).view(*rows.shape[:-1], 1)
    return rows / torch.where(size > 0, size, 1)


def _rzf(H: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return (H H^H + alpha I)^-1 H with rows of norm 1, NaN where there is none, and whether rounding is small.

    Args:
        H: Shape (n, K, M).
        alpha: Shape (n,).

    Returns:
        Shape (n, K, M), and whether the relative error is about ``_LEAK`` at most, shape (n,).
    """
    P, rounding = _inverted(linalg.gram(H.mH), alpha[:, None])
    return _unit(P @ H), rounding <= _LEAK


def _beams(H: Tensor, count: int) -> Tensor:
    """Return leading right singular vectors as rows, conjugated, shape (n, count, M), of matrices H, shape (n, K, M).

    By eigenvectors of the smaller Gram matrix, and by LAPACK's own where squares cost digits.
    """
    tall = H.shape[1] >= H.shape[2]
    gram = linalg.gram(H if tall else H.mH)
    try:
        squares, V = torch.linalg.eigh(gram)  # in the precision of H, in about half the time
    except RuntimeError:  # it gave up on one matrix or more
        squares, V, _ = linalg.eigh(gram)
    rows = V[:, :, -count:].flip(2).mH
    rows = rows.resolve_conj() if tall else _unit(rows @ H)
    # Written so that NaN counts as rough.
    rough = ~(torch.finfo(H.dtype).eps * squares[:, -1] < _LEAK * squares[:, -count])
    if rough.any():
        rows[rough] = linalg.svd(H[rough])[2][:, :count]
    return rows


def _onward(first: Tensor, last: Tensor) -> Tensor:
    """Return the phases by which vectors go on without turning from where those before them ended.

    Args:
        first, last: Where each begins and ends, as conjugated rows, shape (..., n, K, M).

    Returns:
        Phases (..., n, K) of the vectors, 1 for the first.
    """
    overlap = (last[..., :-1, :, :] * first[..., 1:, :, :].conj()).sum(dim=-1)
    phases = torch.where(overlap.abs() > 0, overlap.conj() / overlap.abs(), 1)
    return torch.cat([torch.ones_like(first[..., :1, :, 0]), phases.cumprod(dim=-2)], dim=-2)


class RZFPrecodedChannel(_Precoder, _RZF):
    """Sionna's ``RZFPrecodedChannel``, from the exact precoders of a few tones and symbols of each slot.

    They are the filters of the dual uplink, fitted as by `LMMSEEqualizer`, with ``alpha`` zero by `ZFEqualizer`. Exact
    ones are the other choice, computed in runs of tones in threads, once for a channel that stands still, and in double
    precision where rounding might cost more than a part of 1e-4; so are those with an ``alpha`` that differs from tone
    to tone. Where gradients are asked for the channel, or there is no solution, Sionna's block computes all.

    Args:
        resource_grid, stream_management, precision, device: As for Sionna's block.
        tol: As for `LMMSEEqualizer`, of the dual uplink.
        method: As for `LMMSEEqualizer`.

    Attributes:
        report: What the last call did, a `GridReport`.
    """

    def call(self, h: Tensor, tx_power: Tensor, h_hat: Tensor | None = None, alpha: float | Tensor = 0.0) -> Tensor:
        """Return the effective channel: see Sionna's block of this name.

        Args:
            h, tx_power, h_hat, alpha: As there.
        """
        known = h if h_hat is None else h_hat
        if not self._followed(**{"h" if h_hat is None else "h_hat": known}, alpha=alpha):
            level = _expanded(torch.as_tensor(alpha, dtype=self.dtype, device=h.device), 4, -1)
            still = self._stands(known, level)
            known, level = (x[..., :1, :] if still else x for x in (known, level))
            ways = self._regularised(known, level)
            if ways:
                with self._tried():
                    return self._precoded(ways, known if h_hat is None else h, tx_power, h.shape[-2])
        return super().call(h, tx_power, h_hat, alpha)


class RZFPrecoder(_Precoder, _RZF_PRECODER):
    """Sionna's ``RZFPrecoder``, from the exact precoders of a few tones and symbols of each slot.

    Args:
        resource_grid, stream_management, return_effective_channel, precision, device: As for Sionna's block.
        tol: As for `RZFPrecodedChannel`.
        method: As for `LMMSEEqualizer`.

    Attributes:
        report: What the last call did, a `GridReport`.
    """

    def call(self, x: Tensor, h: Tensor, alpha: float | Tensor = 0.0) -> Tensor | tuple[Tensor, Tensor]:
        """Precode resource grids: see Sionna's block of this name.

        Args:
            x, h, alpha: As there.
        """
        if not self._followed(h=h, alpha=alpha):
            level = _expanded(torch.as_tensor(alpha, dtype=self.dtype, device=h.device), 4, 0)
            still = self._stands(h, level)
            known, level = (y[..., :1, :] if still else y for y in (h, level))
            ways = self._regularised(known, level)

            def sent(i: int, t: int, run: Run, rows: Tensor) -> tuple[Tensor, ...]:
                G, own = rows.mH, x[i, t, ..., run[0]].permute(2, 0, 1).to(rows)
                # What is the same for all symbols serves them at once.
                own = (G[0] @ own).permute(2, 0, 1) if len(G) == 1 else (G @ own.permute(2, 0, 1)[..., None])[..., 0]
                return own, *([_received(known, i, t, run).to(rows) @ G] * self._return_effective_channel)

            if ways:
                with self._tried():
                    precoded, *effective = self._each(ways, known, x, sent)
                    precoded = precoded.permute(0, 1, 4, 2, 3)
                    return (precoded, self._shaped(*effective, h, h.shape[-2])) if effective else precoded
        return super().call(x, h, alpha)


class SVDPrecodedChannel(_Precoder, _PRECODED):
    """The effective channel after precoding by leading right singular vectors, continuous from tone to tone.

    Sionna has no such block; this one is called as its ``RZFPrecodedChannel``, without ``alpha``. Each transmitter
    serves one receiver. Vectors are those of `SVD`, whose phases and order are continuous where the values allow that,
    so that a receiver may smooth its estimates over tones. Where no map pays they are exact: by eigenvectors of the
    smaller Gram matrix, or LAPACK's where squares would cost digits, with phases that go on from tone to tone, and at
    the first tone from symbol to symbol. Where gradients are asked for the channel they are LAPACK's, with any phases.

    Args:
        resource_grid, stream_management, precision, device: As for Sionna's blocks.
        tol: Tolerance of the fits, the relative residual of `SVD`.
        method: As for `LMMSEEqualizer`.

    Attributes:
        report: What the last call did, a `GridReport`.
    """

    def call(self, h: Tensor, tx_power: Tensor, h_hat: Tensor | None = None) -> Tensor:
        """Return the effective channel.

        Args:
            h, tx_power, h_hat: As for Sionna's ``RZFPrecodedChannel``.
        """
        known, served = h if h_hat is None else h_hat, self._precoding_ind_tensor
        one, remedy = served.shape[1] == 1, "precode for several by RZFPrecodedChannel"
        checks.require(one, "stream_management", "one receiver for each transmitter", served.shape[1], remedy)
        streams, least = self._stream_management.num_streams_per_tx, min(known.shape[2], known.shape[4])
        checks.require(streams <= least, "h", f"at least {streams} antennas for {streams} streams", least, "send fewer")
        if self._followed(**{"h" if h_hat is None else "h_hat": known}):
            desired = torch.stack(self._channels(known)).permute(0, 3, 4, 1, 2).to(self.cdtype)
            g = torch.linalg.svd(desired, full_matrices=False)[2][..., :streams, :].mH
            g = g.unflatten(0, (len(h), -1))
            return self.compute_effective_channel(h, self.apply_tx_power(g, tx_power))
        known = known[..., :1, :] if self._stands(known) else known
        channels = self._channels(known)

        def exactly(channel: Tensor, run: Run) -> Tensor:
            H = _at(channel, run).to(self.cdtype).contiguous()
            rows = _beams(H.flatten(0, 1), streams).unflatten(0, H.shape[:2])
            return rows * _onward(rows, rows).conj()[..., None]

        ways = self._mapped(known, channels, SVD(rank=streams), 2)
        turn, ways = ways is None, ways or [partial(exactly, own) for own in channels]
        return self._precoded(ways, known if h_hat is None else h, tx_power, h.shape[-2], turn=turn)
