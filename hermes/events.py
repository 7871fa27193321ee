"""What happens in a run, as it happens, and the fan-out to whoever listens."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from .model import Outcome

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`time` is in seconds since the epoch, taken when the event was made."""

    time: float = field(default_factory=time.time)

    def as_json(self) -> dict[str, Any]:
        """The event as JSON types; `event` is its name in snake case, bytes are decoded as UTF-8 with replacement."""
        data: dict[str, Any] = {"event": re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()}
        for each in fields(self):
            data[each.name] = _plain(getattr(self, each.name))
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """The plan is checked and nothing has been started. `total` counts all jobs."""

    run_id: str
    name: str
    total: int
    threads: int
    experiments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted(Event):
    """The job's process exists. `index` counts the jobs of the plan from 0; `slot` is its HERMES_SLOT."""

    identifier: str
    script: str
    index: int
    slot: int
    pid: int
    argv: tuple[str, ...]
    arguments: tuple[str, ...]
    directory: str
    line: int
    log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk(Event):
    """A job has printed something: up to 64 KiB of bytes as they are, not cut at line ends."""

    identifier: str
    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCollected(Event):
    """A file that carries the identifier is in the experiment directory, under `path` relative to it."""

    identifier: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded(Event):
    """The job has ended and its directory is final: files collected, copied and moved, metadata written."""

    index: int
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWarning(Event):
    """Something that concerns the whole run and harms no result, such as an exhausted watch limit."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """All jobs have ended, or the run was cancelled. Comes last."""

    run_id: str
    started: int
    succeeded: int
    cancelled: bool


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Outcome):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return list(value) if isinstance(value, tuple) else value


class Feed:
    """Hands every event to every listener. A slow listener holds nobody up; one that has left costs nothing."""

    def __init__(self) -> None:
        self._listeners: list[MemoryObjectSendStream[Event]] = []
        self._closed = False

    def listen(self) -> Listener:
        """From now on, all events up to the end of the run."""
        import anyio

        send, receive = anyio.create_memory_object_stream[Event](math.inf)
        if self._closed:
            send.close()
        else:
            self._listeners.append(send)
        return Listener(receive)

    def publish(self, event: Event) -> None:
        import anyio

        for listener in tuple(self._listeners):
            try:
                listener.send_nowait(event)
            except anyio.BrokenResourceError:
                self._listeners.remove(listener)
                listener.close()

    @property
    def waiting(self) -> int:
        """How many events the slowest listener has yet to take."""
        return max((stream.statistics().current_buffer_used for stream in self._listeners), default=0)

    @property
    def followed(self) -> bool:
        """Whether anybody listens at all."""
        return bool(self._listeners)

    def close(self) -> None:
        self._closed = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


class Listener:
    """The events of a run, in order. No more are kept for it once nobody holds it, as after a loop that was left early."""

    def __init__(self, stream: MemoryObjectReceiveStream[Event]) -> None:
        self._stream = stream

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Event:
        import anyio

        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    def __del__(self) -> None:
        self._stream.close()
