"""`hsmsigner bench`: what this machine's token and gRPC can do at most, and how much of it an appliance reaches."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from time import monotonic
from typing import Annotated, ParamSpec, TypeVar

import typer

from hsmsigner.cli.bench_appliance import KEY, disk_of, processors, running_appliance
from hsmsigner.cli.bench_limits import bare_token_rates, echo_server, run_echo_load
from hsmsigner.cli.bench_load import LoadPlan, LoadResult, run_load
from hsmsigner.cli.bench_log import LogReport, run_log_bench
from hsmsigner.cli.options import JsonOption
from hsmsigner.cli.output import ExitCode, print_json, print_line, print_progress, print_table

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_TICK_S = 0.5
_BATCH = 64
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
    processors: int
    disk: str
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    plan: LoadPlan


def run_bench(directory: Path, seconds: float, signatures: int, progress: Callable[[str], None]) -> BenchReport:
    """Measure the limits, then an appliance, one after the other; each load generator has a process of its own.

    `directory` is an empty folder on the disk to be measured. `signatures` are made before memory is looked at.

    Raises:
        ConfigurationError: the token or the appliance cannot be set up.
    """
    rows = (
        _Row("Sign, 1 in flight", LoadPlan("unary", 1, seconds=seconds)),
        _Row("Sign, 64 in flight", LoadPlan("unary", 64, seconds=seconds)),
        _Row("StreamSign, 256 in flight", LoadPlan("stream", 256, seconds=seconds)),
        _Row(f"BatchSign({_BATCH}), 4 in flight", LoadPlan("batch", 4, _BATCH, seconds=seconds)),
    )
    token = _in_own_process(progress, "bare token", bare_token_rates, directory / "token", seconds / 2)
    threads, token_rate = max(token.items(), key=lambda item: item[1])
    with echo_server() as (address, credentials):
        plan = LoadPlan("unary", 64, seconds=seconds)
        echo = _in_own_process(progress, "empty echo", run_echo_load, address, credentials, plan)
    with running_appliance(directory / "appliance") as appliance:

        def load(name: str, plan: LoadPlan) -> LoadResult:
            return _in_own_process(progress, name, run_load, appliance.profile, KEY, plan)

        results = [load(row.name, row.plan) for row in rows]
        made = sum(result.calls * row.plan.items for row, result in zip(rows, results, strict=True))
        if made < signatures:
            filling = LoadPlan("batch", 4, _BATCH, signatures=signatures - made)
            results.append(load(f"memory, after {signatures:,} signatures", filling))
            made += results[-1].calls * _BATCH
        rss_mib = appliance.frontend_rss_mib()
    measurements = (
        Measurement(f"bare token, sign + verify, {threads} threads", token_rate),
        Measurement("empty mTLS echo, 64 in flight", echo.rate, echo.p50_ms, echo.p99_ms),
        # Without the run that only fills the memory.
        *(_measurement(row.name, result, token_rate, echo.rate) for row, result in zip(rows, results, strict=False)),
    )
    return BenchReport(
        measurements=measurements,
        aims=_aims(measurements, rss_mib),
        frontend_rss_mib=rss_mib,
        signatures=made,
        processors=processors(),
        disk=disk_of(directory),
        failures=tuple(
            f"{result.failures} of {result.calls} calls failed, the first with {result.first_failure}"
            for result in (echo, *results)
            if result.failures
        ),
    )


def _measurement(name: str, result: LoadResult, token_rate: float, echo_rate: float) -> Measurement:
    return Measurement(
        name, result.rate, result.p50_ms, result.p99_ms, result.rate / token_rate, result.rate / echo_rate
    )


def _aims(measurements: tuple[Measurement, ...], rss_mib: float | None) -> tuple[Aim, ...]:
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


def _in_own_process(
    progress: Callable[[str], None],
    name: str,
    function: Callable[_Parameters, _Result],
    *args: _Parameters.args,
    **kwargs: _Parameters.kwargs,
) -> _Result:
    # Spawned: neither gRPC nor a PKCS#11 module survives a fork.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        begin = monotonic()
        future: Future[_Result] = process.submit(function, *args, **kwargs)
        while True:
            progress(f"{name}: {monotonic() - begin:.0f} s")
            if wait_for([future], timeout=_TICK_S).done:
                return future.result()


@contextmanager
def _bench_directory(parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hsmsigner-bench-", dir=parent) as path:
        yield Path(path)


def bench(
    seconds: Annotated[
        float, typer.Option(help="How long each measurement takes.", min=0.5, max=600, metavar="SECONDS")
    ] = 5.0,
    signatures: Annotated[
        int, typer.Option(help="Look at the frontend's memory after so many.", min=0, metavar="NUMBER")
    ] = 200_000,
    directory: Annotated[
        Path | None,
        typer.Option(help="Measure on this folder's disk.", metavar="DIR", exists=True, file_okay=False),
    ] = None,
    log: Annotated[
        int | None,
        typer.Option(help="Measure an audit log of so many records instead.", min=1, metavar="RECORDS"),
    ] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 when an aim is missed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a throw-away appliance against the bare token and an empty server, with full durability.

    Example: hsmsigner bench --seconds 10
    Example: hsmsigner bench --log 10000000 --directory /var/tmp
    """
    # gRPC writes of every closed connection otherwise, in this process and in those it starts.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if log is not None:
        _bench_log(directory, log, check=check, as_json=as_json)
        return
    with _bench_directory(directory) as path:
        report = run_bench(path, seconds, signatures, print_progress)
    print_progress("")
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report)
    is_missed = any(aim.is_met is not True for aim in report.aims)
    if report.failures or (check and is_missed):
        raise typer.Exit(ExitCode.REFUSED)


def _bench_log(directory: Path | None, records: int, *, check: bool, as_json: bool) -> None:
    with _bench_directory(directory) as path:
        report = run_log_bench(path, records, print_progress)
    print_progress("")
    if as_json:
        print_json(asdict(report) | {"missed": report.missed})
    else:
        _print_log_report(report)
    if check and report.missed:
        raise typer.Exit(ExitCode.REFUSED)


def _print_log_report(report: LogReport) -> None:
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


def _print_report(report: BenchReport) -> None:
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
    print_line(f"\n{report.signatures:,} signatures; {report.processors} processors; disk: {report.disk or 'unknown'}")
    if report.disk == "tmpfs":
        print_line("tmpfs forgets at power-off, so nothing was durable: name a folder on a disk with --directory")
    for failure in report.failures:
        print_line(failure)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
