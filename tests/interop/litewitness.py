"""A litewitness process: the witness of Debian's torchwood, with a key behind an SSH agent of the test's own."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hsmsigner.transparency.note import KeyType, NoteKey
from tests.e2e.appliance import free_port, until
from tests.interop.ssh_agent import agent, fingerprint
from tests.witness.twins import note_key, seeded_key

NAME = "witness.example/litewitness"
SIGNER = seeded_key("litewitness")
KEY: NoteKey = note_key(NAME, KeyType.COSIGNATURE, SIGNER)
_STOP_S = 20.0


@dataclass
class Litewitness:
    """One witness with one database; it may be stopped and started again at the same address."""

    programs: Path
    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def printed(self) -> str:
        return (self.folder / "witness.log").read_text()

    def register(self, origin: str, vkey: str) -> None:
        """Have it know a log and its first key."""
        self._control("add-log", origin)
        self.trust(origin, vkey)

    def trust(self, origin: str, vkey: str) -> None:
        """Have it know one more key of a log."""
        self._control("add-key", origin, "-key", vkey)

    def _control(self, command: str, origin: str, *options: str) -> None:
        program, database = str(self.programs / "witnessctl"), str(self.folder / "witness.db")
        arguments = [program, command, "-db", database, "-origin", origin, *options]
        subprocess.run(arguments, check=True, capture_output=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while inside."""
        options = ["-db", str(self.folder / "witness.db"), "-name", NAME, "-key", fingerprint(SIGNER)]
        options += ["-listen", f"127.0.0.1:{self.port}", "-ssh-agent", str(self.folder / "agent")]
        with ExitStack() as stack:
            output = stack.enter_context((self.folder / "witness.log").open("ab"))
            stack.enter_context(agent(self.folder / "agent", SIGNER))
            program = str(self.programs / "litewitness")
            process = subprocess.Popen([program, *options], stdout=output, stderr=output)
            try:
                until(lambda: self._listens(process), "litewitness listens")
                yield
            finally:
                process.terminate()
                process.wait(_STOP_S)
                (self.folder / "agent").unlink(missing_ok=True)

    def _listens(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, self.printed
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True
