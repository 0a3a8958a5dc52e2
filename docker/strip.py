"""Build step: removes from this very root what a running appliance does not need, and checks what is left.

What goes is listed by Debian package, so that the package database of what stays is true: scanners read it. The shell
goes too; whoever wants to look around starts `python`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

STATUS = Path("/var/lib/dpkg/status")
# Programs and their data. Libraries stay, except those that only these programs use.
_PACKAGES = """
apt bash bsdutils ca-certificates coreutils dash debconf debian-archive-keyring debianutils diffutils dpkg findutils
gpgv grep gzip hostname init-system-helpers libapt-pkg7.0 libdb5.3t64 libpam-modules libpam-modules-bin libpam-runtime
libperl5.40 libproc2-0 libsemanage2 libsemanage-common libsystemd0 libudev1 login login.defs logsave mawk mount
ncurses-bin openssl openssl-provider-legacy passwd perl perl-base perl-modules-5.40 procps python3-pip python3-pip-whl
python3-setuptools python3-setuptools-whl python3-wheel python3-venv python3.13-venv sed sensible-utils softhsm2 sqv
sysvinit-utils tar ucf util-linux
"""
# What no package owns, or what is of the machine that built this: its mirror, its CA, pip's settings and caches.
_FOLDERS = """
/build /etc/apt /etc/ca-certificates /etc/ssl/certs /root /tmp /usr/local/share/ca-certificates
/usr/share/ca-certificates /usr/share/doc /usr/share/info /usr/share/lintian /usr/share/locale /usr/share/man
/usr/share/perl5 /var/cache /var/lib/apt /var/lib/dpkg/info /var/log
"""
FILES = ["/etc/pip.conf", "/etc/ca-certificates.conf"]
EMPTY_AGAIN = {"/tmp": 0o1777, "/root": 0o700}  # noqa: S108 - the folder itself
# Modules of the standard library that only developers use.
MODULES = ["ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo"]


def main() -> None:
    """Strip, then check."""
    installed = set(_output("dpkg-query", "-W", "-f", "${Package}\n").split())
    doomed = [name for name in _PACKAGES.split() if name in installed]
    licences = _licences(installed - set(doomed))
    kept = {path for name in installed - set(doomed) for path in _files_of(name)}
    # All asked before any goes: dpkg-query is among them.
    going = [path for name in doomed for path in _files_of(name) if path not in kept]
    for path in going:
        path.unlink(missing_ok=True)
    blocks = STATUS.read_text("utf-8").split("\n\n")
    STATUS.write_text("\n\n".join(block for block in blocks if _name_of(block) not in doomed), "utf-8")
    for file in [*map(Path, FILES), *_pip_commands()]:
        file.unlink(missing_ok=True)
    for folder in [*_FOLDERS.split(), *_python_folders()]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder, mode in EMPTY_AGAIN.items():
        Path(folder).mkdir()
        Path(folder).chmod(mode)
    for path, text in licences.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    _check()


def _licences(names: set[str]) -> dict[Path, bytes]:
    paths = [Path("/usr/share/doc", name, "copyright") for name in names]
    return {path: path.read_bytes() for path in paths if path.is_file()}


def _files_of(name: str) -> list[Path]:
    listed = [Path(line) for line in _output("dpkg-query", "-L", name).splitlines() if line.startswith("/")]
    # Resolved: packages name /bin/x where it lies in /usr/bin.
    return [path.parent.resolve() / path.name for path in listed if path.is_symlink() or path.is_file()]


def _name_of(block: str) -> str:
    found = re.search(r"^Package: (\S+)", block, re.MULTILINE)
    return found[1] if found else ""


def _python_folders() -> list[str]:
    standard = Path(sysconfig.get_path("stdlib"))
    places = [standard / name for name in MODULES]
    # pip lies in dist-packages where Python is Debian's, in site-packages where it is the registry's; and in the venv.
    venv = Path("/opt/hsmsigner/lib").glob("python3*/site-packages")
    for packages in (Path("/usr/lib/python3/dist-packages"), standard / "site-packages", *venv):
        places += [path for pattern in ("pip*", "setuptools*", "wheel*") for path in packages.glob(pattern)]
    return [str(place) for place in places]


def _pip_commands() -> list[Path]:
    return [path for folder in ("/opt/hsmsigner/bin", "/usr/local/bin") for path in Path(folder).glob("pip*")]


def _check() -> None:
    """See that every program and library still finds the libraries it names.

    Raises:
        SystemExit: some do not.
    """
    loader = next(Path("/usr").glob("lib*/ld-linux*.so.*"))
    faults = []
    for path in (path for root in ("/usr", "/opt") for path in Path(root).rglob("*")):
        if path.is_file() and not path.is_symlink() and _is_elf(path):
            listed = subprocess.run([loader, "--list", path], check=False, capture_output=True, text=True)  # noqa: S603
            faults += [f"{path}: {line.strip()}" for line in listed.stdout.splitlines() if "not found" in line]
    if faults:
        sys.exit("libraries are missing:\n" + "\n".join(faults))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - dpkg-query alone


if __name__ == "__main__":
    main()
