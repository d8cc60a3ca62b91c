"""Searches for the code, the steps and the waits with the least latency that meets a goal within limits.

Codes with more payload bits have more redundancy, so they need fewer steps and fewer silent steps. They are tried
first. Their latency limits the steps of the later codes. For each code the search first finds the fewest steps with
which a network that waits long enough meets the goal. From there on, each price of a silent step
(`transpike.conversion.silence`) gives a network, the shortest first, until more steps no longer shorten the latency.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from transpike.coding import CSS, scheme_settings
from transpike.coding.scheme import payload_bits
from transpike.conversion import Prepared, SpikingNetwork
from transpike.conversion.silence import PRICES, Silence, Silences, measured
from transpike.errors import GoalError
from transpike.measure.conversion import compare
from transpike.measure.goals import Held
from transpike.results import Limits, Try

__all__ = ["CODES", "MOST", "SIMULATIONS", "Search", "search"]

SIMULATIONS = 100
"""The largest number of simulations in one search, each of at most 64 images."""

MOST = 16
"""The largest T. Ternary trains then represent 2^17 values."""

CODES = (
    CSS(levels=tuple(range(1, 17)), beta=4.0, span=4),
    CSS(levels=(1, 2, 4, 8)),
    CSS(levels=(1, 2)),
    CSS(levels=(1,)),
)
"""The codes that are searched, the largest payload first: 5, 3, 2 and 1 bits for each spike."""

_PRICES = (3.0, 1.0, *PRICES[:5])
_PATIENCE = 2  # how many numbers of steps may fail before the first that succeeds
_ENERGY_IMAGES = 16
_CAUSE_IMAGES = 24
_RESERVE = 3  # simulations after the last try, for residuals and the limiting cause
_MENDS = {
    "resolution": "more steps reduce it",
    "clipping": "more payload bits reduce it, because larger spikes are never clipped",
    "coupling": "more silent steps or payload bits reduce it",
}


@dataclass(frozen=True)
class Search:
    """The result of a search.

    Attributes:
        network: the network with the least latency, including its residuals and its search.
        tries: all networks that were tried, in order.
        simulations: the number of simulations.
        images: the images that set the amplitudes and judged the goal.
        goal: the goal in words.
    """

    network: SpikingNetwork
    tries: tuple[Try, ...]
    simulations: int
    images: int
    goal: str


def search(
    prepared: Prepared, held: Held, limits: Limits, *, progress: Callable[[str, int], None] | None = None
) -> Search:
    """Return the network of least latency that meets the goal within the limits; of equal ones, that of less energy.

    If a mean latency is among the limits, it is the network with the least mean latency, whose images stop when their
    answers are sure.

    Args:
        prepared: the network, and the images that set the amplitudes.
        held: other images, which judge the goal.
        limits: the limits to keep.
        progress: called with the present try and the number of simulations so far.

    Raises:
        GoalError: No try meets the goal within the limits. The message has the closest try and the limit that it
            breaks.
    """
    return _Search(prepared, held, limits, progress or (lambda _, __: None)).run()


@dataclass(frozen=True)
class _Candidate:
    """A judged network, and its distance from the goal."""

    tried: Try
    snn: SpikingNetwork
    few: int
    distance: float

    @property
    def reached(self) -> float:
        """The figure to minimise: the latency, or its mean over images that stop early."""
        return self.tried.latency if self.tried.mean_latency is None else self.tried.mean_latency


class _Spent(Exception):
    """Raised if the next step could need more simulations than are left."""


class _Search:
    def __init__(self, prepared: Prepared, held: Held, limits: Limits, progress: Callable[[str, int], None]) -> None:
        self.prepared, self.held, self.limits, self.progress = prepared, held, limits, progress
        self.tries: list[Try] = []
        self.taken = 0
        self.best: _Candidate | None = None
        self.nearest: _Candidate | None = None

    def run(self) -> Search:
        spent = ""
        try:
            for code in CODES:
                if self.limits.keep(payload_bits=payload_bits(code.digits)):
                    self._search(code)
        except _Spent:
            spent = f" in {SIMULATIONS} simulations"
        if self.best is None:
            raise GoalError(f"goal: no network that was tried{spent} {self._why()}", tuple(self.tries))
        at, snn = self.tries.index(self.best.tried), self.best.snn
        self.tries[at] = replace(self.best.tried, chosen=True)
        self.taken += 1
        snn.residuals = measured(snn, self.prepared.images[-self.best.few :]).residuals
        snn.search = tuple(self.tries)
        images = len(self.prepared.images) + len(self.held.images)
        return Search(snn, snn.search, self.taken, images, str(self.held.goal))

    # -- one code ------------------------------------------------------------------------------------------------------

    def _search(self, code: CSS) -> None:
        most = min(MOST, self.limits.latency or MOST, self.best.snn.latency if self.best else MOST)
        fewest = self._fewest(code, most)
        patience = _PATIENCE
        for steps in range(fewest or most + 1, most + 1):
            before = self.best
            if before is not None and steps > before.snn.latency:
                break
            self._shorten(code, steps)
            patience = patience - 1 if self.best is before else 1
            if not patience:
                break  # more steps would need as many silent steps

    def _fewest(self, code: CSS, most: int) -> int | None:
        """Return the fewest steps with which a network that waits long enough meets the goal."""
        low, high, fewest = min(2, most), most, None
        while low <= high:
            steps = (low + high) // 2
            silences = self._silences(code, steps)
            # Half the amplitude gives one more digit. Larger digits keep the range and are not needed otherwise.
            silence = silences.patient(0.5 if max(code.digits) > 1 else 1.0)
            if self._try(silences, silence, always=True).met:
                fewest, high = steps, steps - 1
            else:
                low = steps + 1
        return fewest

    def _shorten(self, code: CSS, steps: int) -> None:
        """Try one network for each price of a silent step, the shortest first, until one meets goal and limits."""
        silences, known = self._silences(code, steps), list[Silence]()
        for price in _PRICES:
            self._take(1)
            silence = silences.at(price)
            if silence in known:
                continue
            known.append(silence)
            tried = self._try(silences, silence)
            if not tried.images or (tried.met and tried.fits):
                break  # lower prices only wait longer

    def _silences(self, code: CSS, steps: int) -> Silences:
        scheme = replace(code, steps=steps)
        return Silences(self.prepared, scheme, self.prepared.amplitudes(scheme))

    # -- one network ---------------------------------------------------------------------------------------------------

    def _try(self, silences: Silences, silence: Silence, *, always: bool = False) -> Try:
        """Judge a network. Without ``always``, only if its latency is within the limit and not above the best."""
        scheme, snn = silences.scheme, silences.build(silence)
        mean, waited = self.limits.mean_latency, snn.latency - snn.steps
        soonest = waited + min(2, snn.steps)  # no answer stops at the first of several steps
        tried = Try(
            code=scheme.label.replace(" Ts=auto", ""),
            scheme=scheme_settings(scheme),
            steps=snn.steps,
            latency=snn.latency,
            payload_bits=payload_bits(scheme.digits),
            fits=self.limits.keep(latency=snn.latency, mean_latency=soonest),
        )
        self.progress(f"{tried.code}, T = {tried.steps}, latency {tried.latency}", self.taken)
        no_longer = self.best is None or (snn.latency if mean is None else soonest) <= self.best.reached
        if always or (tried.fits and no_longer):
            self._need(self.held.cost)
            score, simulations = self.held.judge(snn, agreement=None if mean is None else self.limits.agreement)
            self.taken += simulations
            tried = replace(tried, **asdict(score))
            if tried.mean_steps is not None:
                late = waited + tried.mean_steps
                tried = replace(tried, mean_latency=late, fits=self.limits.keep(latency=snn.latency, mean_latency=late))
            if tried.met and tried.fits and no_longer:
                tried = self._priced(tried, snn)
            self._keep(_Candidate(tried, snn, silences.few, score.distance(self.held.goal)))
        self.tries.append(tried)
        return tried

    def _priced(self, tried: Try, snn: SpikingNetwork) -> Try:
        self._take(2)
        row = compare(snn, [self.held.images[:_ENERGY_IMAGES]]).row
        fits = tried.fits and self.limits.keep(energy=row.energy_uj)
        return replace(tried, energy_uj=row.energy_uj, spikes_per_neuron=row.spikes_per_neuron, fits=fits)

    def _keep(self, candidate: _Candidate) -> None:
        """Keep a candidate if it is the best so far or, if none meets the goal, the nearest to it."""

        def cost(one: _Candidate) -> tuple[float, float]:
            return one.reached, one.tried.energy_uj or math.inf

        def missed(one: _Candidate) -> tuple[bool, float, bool]:
            return not one.tried.met, one.reached if one.tried.met else one.distance, not one.tried.fits

        if candidate.tried.met and candidate.tried.fits:
            if self.best is None or cost(candidate) < cost(self.best):
                self.best = candidate
        elif self.nearest is None or missed(candidate) < missed(self.nearest):
            self.nearest = candidate

    def _need(self, simulations: int) -> None:
        if self.taken + simulations > SIMULATIONS - _RESERVE:
            raise _Spent

    def _take(self, simulations: int) -> None:
        self._need(simulations)
        self.taken += simulations

    # -- if nothing is found -------------------------------------------------------------------------------------------

    def _why(self) -> str:
        """Return the closest try, and the limit that it breaks, in words."""
        goal, limits = self.held.goal, self.limits
        within = f" within the limits ({limits})" if str(limits) else ""
        assert self.nearest is not None  # at least the patient networks of the first code were tried
        tried = self.nearest.tried
        same, kept, error = (100 * (value or 0.0) for value in (tried.same, tried.kept, tried.error))
        came = f"{same:.4g} % same predictions ({kept:.4g} % with the margin) and {error:.3g} % error"
        came += f", {tried.loss_pp:.2f} percentage points lost" if tried.loss_pp is not None else ""
        came += f", {100 * tried.measure:.4g} % {goal.kind}" if tried.measure is not None else ""
        place = f"{tried.code}, T = {tried.steps}, latency {tried.latency}"
        if tried.met:
            over = [f"latency is {tried.latency}"] if limits.latency and tried.latency > limits.latency else []
            if not limits.keep(mean_latency=tried.mean_latency or 0.0):
                over.append(f"mean latency is {tried.mean_latency:.3g}")
            over += [f"energy is {tried.energy_uj:.3g} µJ"] if tried.energy_uj and not over else []
            binds = f"it meets the goal, and its {' and '.join(over)}: the limit binds. Raise it, or lower the goal"
        else:
            self.taken += 3
            cause = self.nearest.snn.diagnose(self.held.images[:_CAUSE_IMAGES]).binding
            binds = f"{cause} binds: {_MENDS[cause]}. Raise the limits, or lower the goal"
        return f"gives {goal}{within}. The closest is {place}, with {came}; {binds}."
