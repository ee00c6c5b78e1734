"""The job table: one SQLite file, one function that writes. Knows rows, not their meaning."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from workbench.errors import InputError, WorkbenchError
from workbench.jobs.faults import fault_point
from workbench.workspace import disk_error

BUSY_SECONDS = 10.0
PAUSES = random.Random()
FULL_BYTES = 1_000_000
NETWORK_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "afs", "lustre", "ceph")
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        key TEXT UNIQUE,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        config TEXT NOT NULL,
        device TEXT NOT NULL,
        command TEXT NOT NULL,
        cwd TEXT NOT NULL,
        turn INTEGER NOT NULL,
        state TEXT NOT NULL,
        stop TEXT,
        save_asked INTEGER NOT NULL DEFAULT 0,
        sample_asked INTEGER NOT NULL DEFAULT 0,
        claim INTEGER NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0,
        pid INTEGER,
        stage TEXT NOT NULL DEFAULT '',
        step INTEGER NOT NULL DEFAULT 0,
        steps INTEGER NOT NULL DEFAULT 0,
        checkpoint_step INTEGER,
        created TEXT NOT NULL,
        started TEXT,
        finished TEXT,
        asked_to_stop REAL,
        seconds REAL NOT NULL DEFAULT 0,
        peak_bytes INTEGER NOT NULL DEFAULT 0,
        versions TEXT NOT NULL DEFAULT '{}',
        message TEXT NOT NULL DEFAULT '',
        refused INTEGER NOT NULL DEFAULT 0,
        result TEXT
    );
    CREATE INDEX jobs_by_state ON jobs (state, turn, seq);
    """,
)


class _Kept(NamedTuple):
    """A thread's connection: the process that made it, and the file that it is on."""

    process: int
    connection: sqlite3.Connection
    inode: int


class Table:
    """The SQLite file of a workspace; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open the file, making or migrating it.

        Raises:
            InputError: it is damaged, made by a newer version, or cannot be written.
        """
        self.path = path
        self.on_network = _on_network(path.parent)
        self._local = threading.local()
        try:
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection (one made before a fork is left alone).

        A file that was moved away or deleted meanwhile is left alone too: a new one is made in its place.
        """
        kept: _Kept | None = getattr(self._local, "kept", None)
        if kept is not None and kept.process == os.getpid():
            if kept.inode == _inode(self.path):
                return kept.connection
            kept.connection.close()
        self._local.kept = None
        connection = self._connect()
        self._local.kept = _Kept(os.getpid(), connection, _inode(self.path))
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._migrate()
        return connection

    def read(self, query: str, values: tuple[object, ...] = ()) -> list[sqlite3.Row]:
        """Run one SELECT.

        Raises:
            WorkbenchError: the file cannot be read.
        """
        try:
            return self.connection().execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """The only way to change the table: one transaction that holds the write lock from its start.

        Raises:
            DiskFull, WorkbenchError: nothing of the transaction was kept.
        """
        try:
            connection = self.connection()
            _begin(connection)
            try:
                yield connection
                fault_point("commit")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.DatabaseError as error:
            raise self._explain(error) from error

    def close(self) -> None:
        """Close this thread's connection."""
        kept: _Kept | None = getattr(self._local, "kept", None)
        if kept is not None and kept.process == os.getpid():
            kept.connection.close()
        self._local.kept = None

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
        connection.execute(f"PRAGMA journal_mode = {'DELETE' if self.on_network else 'WAL'}")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _migrate(self) -> None:
        connection = self.connection()
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("malformed")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise InputError(
                f"The job table {self.path.name!r} was made by a newer workbench (schema {version}, "
                f"this one knows {len(MIGRATIONS)}); update the workbench or choose another --workspace."
            )
        if version == len(MIGRATIONS):
            return
        if version:
            self._back_up(connection, version)
        with self.write() as writer:
            version = writer.execute("PRAGMA user_version").fetchone()[0]
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                for statement in filter(str.strip, script.split(";")):
                    writer.execute(statement)
                writer.execute(f"PRAGMA user_version = {number}")

    def _back_up(self, connection: sqlite3.Connection, version: int) -> None:
        with closing(sqlite3.connect(self.path.with_name(f"{self.path.name}.schema-{version}"))) as copy:
            connection.backup(copy)

    def _explain(self, error: sqlite3.DatabaseError) -> WorkbenchError:
        text = str(error).lower()
        if "full" in text or ("i/o error" in text and shutil.disk_usage(self.path.parent).free < FULL_BYTES):
            return disk_error(self.path, OSError(28, "No space left on device"))
        if "malformed" in text or "not a database" in text:
            return InputError(
                f"The job table {self.path.name!r} is damaged; move it away to start with an empty list "
                "(captures, banks, plans, students and clips are not in it and stay)."
            )
        if "readonly" in text or "unable to open" in text:
            return disk_error(self.path, OSError(30, str(error)))
        return WorkbenchError(f"The job table {self.path.name!r} could not be used ({error}); try again.")


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock within ten seconds.

    SQLite's own waiting looks ever more rarely, up to every 100 ms, and starves beside a writer that never
    rests; this looks every few milliseconds at random, on a generator of its own: the global one belongs
    to the training, whose course a busy table must not change.
    """
    until = time.monotonic() + BUSY_SECONDS
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(PAUSES.uniform(0.0005, 0.008))
    finally:
        connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _inode(path: Path) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return -1


def _on_network(folder: Path) -> bool:
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    nearest = max(mounts, key=lambda part: len(part.mountpoint), default=None)
    return nearest is not None and nearest.fstype in NETWORK_FILE_SYSTEMS
