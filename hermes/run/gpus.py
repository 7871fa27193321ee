"""GPUs for the jobs of one run: those that wait, what they get, and what they give back."""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction

import anyio
import msgspec

from ..blocking import in_thread
from ..errors import HermesError
from ..executors.base import Todo
from ..executors.proc import processes_of
from ..gpus.claims import Claim, Claims, Holding, own_folder
from ..gpus.finding import Gpu, Gpus, find
from ..gpus.sharing import Request, count_of, deal, share_of
from ..language.plan import Plan, amount_of
from ..language.settings import Settings
from ..storage.gpu_variables import CLAIM, claim_name
from ..storage.run_folder import RunFolder


class GpuDealer:
    """Gives GPUs to the jobs of one run, never beyond their shares, over all runs of this user.

    One task, `serve`, decides for all that wait; it alone writes what the run holds.
    """

    def __init__(
        self, *, run_id: str, settings: Settings, found: Gpus, claims: Claims, poll: float
    ) -> None:
        self._run_id = run_id
        self._settings = settings
        self._gpus: Mapping[str, Gpu] = {gpu.id: gpu for gpu in found.gpus}
        self._free = found.free
        self._claims = claims
        self._poll = poll
        self._threads = anyio.CapacityLimiter(1)
        self._waiting: list[_Waiting] = []
        self._held: dict[str, Claim] = {claim.name: claim for claim in claims.earlier}
        self._changed = anyio.Event()

    @classmethod
    def opened(cls, folder: RunFolder, found: Gpus, poll: float) -> GpuDealer:
        """`poll`: seconds between two looks at what other runs, and other programs, have given
        back. Blocks. Raises `HermesError`."""
        claims = Claims(own_folder(), folder.run_id, lambda: list(processes_of(CLAIM)))
        return cls(
            run_id=folder.run_id, settings=folder.plan.settings, found=found, claims=claims,
            poll=poll,
        )  # fmt: skip

    def close(self) -> None:
        """Gives everything back. Blocks."""
        self._claims.close()

    async def take(self, todo: Todo) -> HeldGpus:
        """Waits for the GPUs of a job. One that is taken up has them already."""
        amount = amount_of(todo.job.options, self._settings)
        held = HeldGpus(self, claim_name(self._run_id, todo.key, todo.attempt))
        if todo.leftover is not None:
            held.values = todo.leftover.metadata.gpus
            if held.name not in self._held:
                values = held.values or ()
                gpus = tuple(gpu.id for gpu in self._gpus.values() if gpu.value in values)
                self._held[held.name] = Claim(
                    name=held.name, gpus=gpus, share=str(share_of(amount))
                )
        elif amount == 0:
            held.values = ()
        else:
            waiting = _Waiting(name=held.name, request=Request(amount))
            self._waiting.append(waiting)
            self._changed.set()
            try:
                await waiting.is_served.wait()
            except BaseException:
                held.release()
                raise
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
            held.values = tuple(self._gpus[gpu].value for gpu in waiting.given)
        return held

    def give_back(self, name: str) -> None:
        """Does nothing for a claim that there is not."""
        if self._held.pop(name, None) is not None:
            self._changed.set()

    async def serve(self) -> None:
        """Gives those that wait their GPUs, as soon as there are any."""
        while True:
            self._changed = anyio.Event()
            waiting, held = list(self._waiting), list(self._held.values())
            for each, claim in await in_thread(self._deal, waiting, held, limiter=self._threads):
                if each not in self._waiting:
                    # Cancelled meanwhile: what was written down for it goes with the next turn
                    self._changed.set()
                    continue
                self._waiting.remove(each)
                self._held[claim.name] = claim
                each.given = claim.gpus
                each.is_served.set()
            with anyio.move_on_after(self._poll if self._waiting else math.inf):
                await self._changed.wait()

    def _deal(
        self, waiting: Sequence[_Waiting], held: Sequence[Claim]
    ) -> list[tuple[_Waiting, Claim]]:
        """Decides, and writes down what this run holds then. Blocks."""
        usable = self._with_memory() if waiting else []
        with self._claims.others() as others:
            claims = {claim.name: claim for each in others for claim in each.claims}
            claims.update((claim.name, claim) for claim in held)
            used: dict[str, Fraction] = {}
            for claim in claims.values():
                for gpu in claim.gpus:
                    used[gpu] = used.get(gpu, Fraction(0)) + claim.part
            older = [each for each in others if waiting and each.since < waiting[0].since]
            closed = {gpu for each in older for gpu in each.kept_free}
            given = deal([each.request for each in waiting], usable, used, closed)
            served = [
                (each, Claim(name=each.name, gpus=gpus, share=str(share_of(each.request.amount))))
                for each in waiting
                if (gpus := given.get(each.request)) is not None
            ]
            oldest = next((each for each in waiting if each.request not in given), None)
            self._claims.write(
                Holding(
                    claims=(*held, *(claim for _, claim in served)),
                    kept_free=oldest.request.kept_free if oldest else (),
                    since=oldest.since if oldest else 0.0,
                )
            )
        return served

    def _with_memory(self) -> list[str]:
        """The GPUs that have as much free memory as `gpu_free` says."""
        least = self._settings.gpu_free
        if least is None:
            return list(self._gpus)
        try:
            free = self._free()
        except HermesError:
            # The driver hangs: it is asked again
            return []
        return [gpu for gpu in self._gpus if free.get(gpu, least) >= least]


@asynccontextmanager
async def dealing(
    folder: RunFolder, gpus: Gpus | None, poll: float
) -> AsyncIterator[GpuDealer | None]:
    """What gives GPUs to the jobs in the block; None where that is not ours to do."""
    if gpus is None:
        yield None
        return
    dealer = await in_thread(GpuDealer.opened, folder, gpus, poll)
    try:
        async with anyio.create_task_group() as services:
            services.start_soon(dealer.serve)
            yield dealer
            services.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(dealer.close)


class _Waiting(msgspec.Struct, eq=False, kw_only=True):
    name: str
    request: Request
    since: float = msgspec.field(default_factory=time.time)
    is_served: anyio.Event = msgspec.field(default_factory=anyio.Event)
    given: tuple[str, ...] = ()


class HeldGpus:
    """What one job holds. `values` are what CUDA_VISIBLE_DEVICES calls its GPUs."""

    def __init__(self, dealer: GpuDealer, name: str) -> None:
        self.name = name
        self.values: tuple[str, ...] | None = None
        self._dealer = dealer

    def release(self) -> None:
        """Gives them back; a second time does nothing."""
        self._dealer.give_back(self.name)


def find_for(plan: Plan) -> Gpus | None:
    """The GPUs that the jobs of a plan may use; None if it asks for none. Blocks.

    Raises `HermesError` if there are not those that it names, or fewer than a job needs.
    """
    setting, amounts = plan.settings.gpus, list(plan.gpu_amounts())
    if setting is None:
        for amount, line in amounts:
            if amount:
                raise HermesError(
                    f"{plan.source_line(line)}: `-g` says how many GPUs the job needs, but not "
                    "which there are",
                    hint="write `gpus: all` in PRE, or give the option `--gpus all`",
                )
        return None
    found = find(setting, os.environ, str(plan.experiments))
    for amount, line in amounts:
        if count_of(amount) > len(found.gpus):
            raise HermesError(
                f"{plan.source_line(line)}: the job needs {amount} GPUs, and `gpus: {setting}` are "
                f"{len(found.gpus)}"
            )
    return found
