"""The right to run a job: as many at once as the settings allow."""

from __future__ import annotations

import heapq
from itertools import count

import anyio

from .gpus import HeldGpus


class Slots:
    """Gives out at most `most` slots at the same time, to those who ask first.

    Numbers are counted from 0; the smallest that is free is given. With `kept`, a slot is free only
    when it is known how its job ended.
    """

    def __init__(self, most: int, *, kept: bool = False) -> None:
        self._are_kept = kept
        self.limiter = anyio.CapacityLimiter(most)
        self._fresh = count()
        self._returned: list[int] = []

    def set_most(self, most: int) -> None:
        """From now on so many at the same time; slots that are held stay held."""
        self.limiter.total_tokens = most

    async def take(self) -> HeldSlot:
        """Waits for a slot."""
        slot = HeldSlot(self, kept=self._are_kept)
        await self.limiter.acquire_on_behalf_of(slot)
        slot.number = heapq.heappop(self._returned) if self._returned else next(self._fresh)
        return slot

    def give_back(self, slot: HeldSlot) -> None:
        heapq.heappush(self._returned, slot.number)
        self.limiter.release_on_behalf_of(slot)


class HeldSlot:
    """One slot, held until it is released.

    A `kept` one is not given back by whoever runs the job, only by `free`.
    """

    number = -1

    def __init__(self, slots: Slots, *, kept: bool) -> None:
        self._slots: Slots | None = slots
        self._is_kept = kept
        self._held: HeldGpus | None = None

    @property
    def gpus(self) -> tuple[str, ...] | None:
        """The GPUs that are held with it, as CUDA_VISIBLE_DEVICES calls them."""
        return self._held.values if self._held is not None else None

    def hold(self, gpus: HeldGpus) -> None:
        """Holds these GPUs too, until the slot is given back."""
        self._held = gpus

    def release(self) -> None:
        """Gives the slot back; a second time does nothing."""
        if not self._is_kept:
            self.free()

    def free(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots.give_back(self)
            if self._held is not None:
                self._held.release()
