"""What has been read of ended experiments, kept in an SQLite file so that it is read once.

The index is a cache: it can be deleted, is never the truth, and what cannot be used of it is made
anew. Where locks cannot be relied on, as on network disks, SQLite works on a copy in memory, and
the file is replaced as a whole: the last one to write it wins.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from .. import __version__
from ..storage.disks import has_locks
from ..storage.files import open_regular, read_regular, write_atomic
from ..storage.layout import EXPERIMENTS, FORMATS, INDEX, RUNS, index_elsewhere, index_file
from .packing import CHUNK, Chunk, DamagedError, Record, packed


def _made_by() -> str:
    """Another Hermes, or one that was edited, may read other things in the same files: its index is
    made anew."""
    with suppress(OSError):
        files = sorted(Path(__file__).parent.rglob("*.py"))
        sizes = repr([(file.name, file.stat().st_size) for file in files])
        return f"{FORMATS[INDEX]} {__version__} {zlib.crc32(sizes.encode()):08x}"
    return f"{FORMATS[INDEX]} {__version__}"


MADE_BY = _made_by()

PATIENCE = 5.0
"""Seconds to wait for another process, which holds the lock for as long as it writes one change."""

_TABLES = (
    "CREATE TABLE made (made_by TEXT, state TEXT)",
    "CREATE TABLE chunks (id INTEGER PRIMARY KEY, data BLOB)",
)
_MADE = "SELECT made_by, state FROM made"


class Index:
    """The index of a folder that experiments are in."""

    def __init__(self, folder: str) -> None:
        """Reads it, as far as it is there and can be used."""
        is_own = os.path.basename(folder) == EXPERIMENTS or os.path.isdir(f"{folder}/{RUNS}")
        self.path = index_file(folder) if is_own else index_elsewhere(folder)
        self.chunks: dict[int, Chunk] = {}
        self._state: str | None = None
        self._is_damaged = False
        try:
            with self._opened(to_write=False) as database:
                database.execute("BEGIN")
                self._read(database)
        except (OSError, sqlite3.OperationalError):
            # There is none, or it cannot be read now
            pass
        except (sqlite3.DatabaseError, DamagedError):
            self._is_damaged = True

    def _read(self, database: sqlite3.Connection) -> None:
        """Takes up what is in the database. Raises `DamagedError` and `sqlite3.Error`."""
        self.chunks, self._state = {}, None
        found = database.execute(_MADE).fetchone()
        if found is not None and found[0] == MADE_BY:
            rows = database.execute("SELECT id, data FROM chunks").fetchall()
            self.chunks = {number: Chunk(data) for number, data in rows}
            self._state = found[1]

    def store(self, added: Chunk | None, gone: Collection[tuple[str, str]]) -> None:
        """Adds experiments, and takes away those of which place and name are `gone`.

        Where that is not possible nothing changes: they are read again the next time.
        """
        with suppress(OSError, sqlite3.OperationalError):
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            try:
                self._write(added, gone)
            except (sqlite3.DatabaseError, DamagedError) as exc:
                if isinstance(exc, sqlite3.OperationalError):
                    raise
                self._is_damaged = True
                self._write(added, gone)

    def _write(self, added: Chunk | None, gone: Collection[tuple[str, str]]) -> None:
        if self._is_damaged:
            for path in (f"{self.path}-journal", self.path):
                with suppress(FileNotFoundError):
                    os.unlink(path)
            self._is_damaged = False
        with self._opened(to_write=True) as database:
            # If the system goes down, what has not reached the disk is told by its checksum
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            self._take_up(database)
            # Not known again before all of it is in the file
            self._state = None
            self._change(database, added, gone)
            # Two processes may write without knowing of each other, so it is not counted
            state = os.urandom(12).hex()
            database.execute("UPDATE made SET state = ?", (state,))
            database.execute("COMMIT")
        self._state = state

    def _change(
        self,
        database: sqlite3.Connection,
        added: Chunk | None,
        gone: Collection[tuple[str, str]],
    ) -> None:
        replaced = set(gone)
        if added is not None:
            replaced.update(zip(added.places, added.names, strict=True))
        names = {name for _, name in replaced}
        records: list[Record] = []
        for number, chunk in list(self.chunks.items()):
            if len(chunk) >= CHUNK // 2 and names.isdisjoint(chunk.names):
                continue
            # Small ones are put together, too
            kept = (each for each in chunk.records() if (each.place, each.name) not in replaced)
            records += kept
            database.execute("DELETE FROM chunks WHERE id = ?", (number,))
            del self.chunks[number]
        if added is not None and records:
            records += added.records()
        made = [] if added is None or records else [added]
        for start in range(0, len(records), CHUNK):
            made.append(Chunk(packed(records[start : start + CHUNK])))
        for chunk in made:
            done = database.execute("INSERT INTO chunks (data) VALUES (?)", (chunk.data,))
            self.chunks[done.lastrowid or 0] = chunk

    def _take_up(self, database: sqlite3.Connection) -> None:
        """What other processes have stored meanwhile; an index of another Hermes is emptied."""
        try:
            found = database.execute(_MADE).fetchone()
        except sqlite3.OperationalError:
            found = None
        if found == (MADE_BY, self._state):
            return
        if found is not None and found[0] == MADE_BY:
            self._read(database)
            return
        tables = "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'view')"
        for kind, name in database.execute(tables).fetchall():
            if not name.startswith("sqlite_"):
                quoted = name.replace('"', '""')
                database.execute(f'DROP {kind.upper()} "{quoted}"')
        for table in _TABLES:
            database.execute(table)
        database.execute("INSERT INTO made VALUES (?, '')", (MADE_BY,))
        self.chunks = {}

    @contextmanager
    def _opened(self, *, to_write: bool) -> Iterator[sqlite3.Connection]:
        """The database. Raises `OSError` and `sqlite3.Error`."""
        if os.path.lexists(self.path) or not to_write:
            # Nothing but a file of ours
            os.close(open_regular(self.path, os.O_RDONLY))
        if has_locks(os.path.dirname(self.path)):
            mode = "rwc" if to_write else "rw"
            address = f"file:{quote(os.fsencode(self.path))}?mode={mode}"
            with closing(
                sqlite3.connect(address, uri=True, isolation_level=None, timeout=PATIENCE)
            ) as database:
                yield database
            return
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
            with suppress(FileNotFoundError):
                if data := read_regular(self.path):
                    database.deserialize(data)
            yield database
            if to_write:
                write_atomic(self.path, database.serialize(), sync=False)
