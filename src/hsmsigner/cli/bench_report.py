"""What `hsmsigner bench` found: rows and aims, as values and as tables."""

from __future__ import annotations

from dataclasses import dataclass

from hsmsigner.cli.bench_log import LogReport
from hsmsigner.cli.output import print_line, print_table

# With many signatures made, memory must not have grown with them.
_MEMORY_AIM_MIB = 150.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row: signatures (or echoes) per second, and its shares of the two limits; None where it makes no sense."""

    name: str
    rate: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    of_token: float | None = None
    of_echo: float | None = None


@dataclass(frozen=True, slots=True)
class Aim:
    """What was hoped for; `is_met` is None when it could not be measured."""

    name: str
    aim: float
    observed: float | None
    is_met: bool | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything one run found. `failures` are calls that did not end in a good signature, in words."""

    measurements: tuple[Measurement, ...]
    aims: tuple[Aim, ...]
    frontend_rss_mib: float | None
    signatures: int
    rounds: int
    processors: int
    disk: str
    failures: tuple[str, ...]


def aims_of(measurements: tuple[Measurement, ...], rss_mib: float | None) -> tuple[Aim, ...]:
    """How the measurements stand against what was hoped for; the last three are unary, stream and batch."""
    *_, unary, stream, batch = measurements
    shares = (
        ("BatchSign, of the bare token", 0.5, batch.of_token),
        ("StreamSign, of the bare token", 0.35, stream.of_token),
        ("Sign at 64, of the empty echo", 0.4, unary.of_echo),
    )
    is_small = None if rss_mib is None else rss_mib < _MEMORY_AIM_MIB
    return (
        *(Aim(name, aim, share, None if share is None else share >= aim) for name, aim, share in shares),
        Aim("memory of the frontend, MiB", _MEMORY_AIM_MIB, rss_mib, is_small),
    )


def print_report(report: BenchReport) -> None:
    """Print rates, aims and what failed."""
    print_table(
        ("P-256, fully durable", "per second", "p50 ms", "p99 ms", "of token", "of echo"),
        [
            (
                row.name,
                f"{row.rate:,.0f}",
                _number(row.p50_ms, ".2f"),
                _number(row.p99_ms, ".2f"),
                _number(row.of_token, ".2f"),
                _number(row.of_echo, ".2f"),
            )
            for row in report.measurements
        ],
        empty="",
    )
    print_line("")
    print_table(
        ("aim", "wanted", "observed", ""),
        [
            (
                aim.name,
                f"{'<' if 'memory' in aim.name else '>='} {aim.aim:g}",
                _number(aim.observed, ".2f"),
                {True: "met", False: "missed", None: "not measured"}[aim.is_met],
            )
            for aim in report.aims
        ],
        empty="",
    )
    counted = f"medians of {report.rounds} rounds (shares are taken within a round), {report.signatures:,} signatures"
    print_line(f"\n{counted}; {report.processors} processors; disk: {report.disk or 'unknown'}")
    if report.disk == "tmpfs":
        print_line("tmpfs forgets at power-off, so nothing was durable: name a folder on a disk with --directory")
    for failure in report.failures:
        print_line(failure)


def print_log_report(report: LogReport) -> None:
    """Print what a long log costs."""
    print_table(
        (f"a log of {report.records:,} records", "p50 ms", "max ms", "wanted ms", ""),
        [
            (
                row.name,
                f"{row.p50_ms:.2f}",
                f"{row.max_ms:.2f}",
                _number(row.aim_ms, "<g"),
                "" if row.aim_ms is None else "missed" if row.name in report.missed else "met",
            )
            for row in report.rows
        ],
        empty="",
    )
    print_line(f"\nappending costs {report.append_ratio:.3f} of what it costs with an empty log")
    built = f"built at {report.build_records_per_s:,.0f} records per second"
    print_line(f"{report.store_mib:,.0f} MiB, {built}; disk: {report.disk or 'unknown'}")


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
