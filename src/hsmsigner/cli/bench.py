"""`hsmsigner bench`: what this machine's token and gRPC can do at most, and how much of it an appliance reaches."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from time import monotonic
from typing import Annotated, ParamSpec, TypeVar

import typer

from hsmsigner.cli.bench_appliance import KEY, disk_of, processors, running_appliance
from hsmsigner.cli.bench_limits import bare_token_rates, echo_server, run_echo_load
from hsmsigner.cli.bench_load import LoadPlan, LoadResult, run_load
from hsmsigner.cli.bench_log import run_log_bench
from hsmsigner.cli.bench_report import BenchReport, Measurement, aims_of, print_log_report, print_report
from hsmsigner.cli.options import JsonOption
from hsmsigner.cli.output import ExitCode, print_json, print_progress

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_TICK_S = 0.5
_BATCH = 64


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    plan: LoadPlan


@dataclass(frozen=True, slots=True)
class _Round:
    """Everything measured once, in seconds of each other: only what one moment of the machine gave is compared.

    Each limit is measured before and after what its aim is about: what the machine does meanwhile evens out.
    """

    tokens: tuple[dict[int, float], dict[int, float]]
    echoes: tuple[LoadResult, LoadResult]
    loads: dict[str, LoadResult]

    @property
    def best_threads(self) -> int:
        return max(self.tokens[0], key=self._token_rate)

    @property
    def token_rate(self) -> float:
        return self._token_rate(self.best_threads)

    @property
    def echo_rate(self) -> float:
        return mean(echo.rate for echo in self.echoes)

    def _token_rate(self, threads: int) -> float:
        return mean(rates[threads] for rates in self.tokens)


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """How often everything is measured, for how long each time, and after how many signatures memory is looked at."""

    rounds: int
    seconds: float
    signatures: int


def run_bench(directory: Path, plan: BenchPlan, progress: Callable[[str], None]) -> BenchReport:
    """Measure the limits and an appliance in turns; each load generator has a process of its own.

    A machine is not as fast in one minute as in the next, so each share is the median of those of the rounds.
    `directory` is an empty folder on the disk to be measured.

    Raises:
        ConfigurationError: the token or the appliance cannot be set up.
    """
    seconds = plan.seconds
    single = _Row("Sign, 1 in flight", LoadPlan("unary", 1, seconds=seconds))
    unary = _Row("Sign, 64 in flight", LoadPlan("unary", 64, seconds=seconds))
    stream = _Row("StreamSign, 256 in flight", LoadPlan("stream", 256, seconds=seconds))
    batch = _Row(f"BatchSign({_BATCH}), 4 in flight", LoadPlan("batch", 4, _BATCH, seconds=seconds))
    rows = (single, unary, stream, batch)
    with echo_server() as (address, credentials), running_appliance(directory / "appliance") as appliance:

        def load(name: str, plan: LoadPlan) -> LoadResult:
            return _in_own_process(progress, name, run_load, appliance.profile, KEY, plan)

        def measure(number: int) -> _Round:
            where = f"round {number} of {plan.rounds}, "
            loads: dict[str, LoadResult] = {}

            def load_by(row: _Row) -> None:
                loads[row.name] = load(where + row.name, row.plan)

            def echo() -> LoadResult:
                return _in_own_process(progress, f"{where}empty echo", run_echo_load, address, credentials, unary.plan)

            def token(when: str) -> dict[int, float]:
                folder = directory / f"token-{number}-{when}"
                return _in_own_process(progress, f"{where}bare token", bare_token_rates, folder, seconds / 2)

            load_by(single)
            echo_before = echo()
            load_by(unary)
            echo_after = echo()
            load_by(stream)
            token_before = token("before")
            load_by(batch)
            return _Round((token_before, token("after")), (echo_before, echo_after), loads)

        rounds = [measure(number) for number in range(1, plan.rounds + 1)]
        made = sum(one.loads[row.name].calls * row.plan.items for one in rounds for row in rows)
        filled = []
        if made < plan.signatures:
            filling = LoadPlan("batch", 4, _BATCH, signatures=plan.signatures - made)
            filled.append(load(f"memory, after {plan.signatures:,} signatures", filling))
            made += filled[0].calls * _BATCH
        rss_mib = appliance.frontend_rss_mib()
    measurements = _measurements(rows, rounds)
    return BenchReport(
        measurements=measurements,
        aims=aims_of(measurements, rss_mib),
        frontend_rss_mib=rss_mib,
        signatures=made,
        rounds=plan.rounds,
        processors=processors(),
        disk=disk_of(directory),
        failures=tuple(
            f"{result.failures} of {result.calls} calls failed, the first with {result.first_failure}"
            for result in (*(result for one in rounds for result in (*one.echoes, *one.loads.values())), *filled)
            if result.failures
        ),
    )


def _measurements(rows: Sequence[_Row], rounds: Sequence[_Round]) -> tuple[Measurement, ...]:
    threads = Counter(one.best_threads for one in rounds).most_common(1)[0][0]
    echoes = [echo for one in rounds for echo in one.echoes]
    return (
        Measurement(
            f"bare token, sign + verify, best with {threads} threads", median(one.token_rate for one in rounds)
        ),
        Measurement("empty mTLS echo, 64 in flight", *_typical(echoes)),
        *(
            Measurement(
                row.name,
                *_typical([one.loads[row.name] for one in rounds]),
                of_token=median(one.loads[row.name].rate / one.token_rate for one in rounds),
                of_echo=median(one.loads[row.name].rate / one.echo_rate for one in rounds),
            )
            for row in rows
        ),
    )


def _typical(results: Sequence[LoadResult]) -> tuple[float, float, float]:
    """Rate, p50 and p99 of the rounds' middle."""
    return (
        median(result.rate for result in results),
        median(result.p50_ms for result in results),
        median(result.p99_ms for result in results),
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
    rounds: Annotated[
        int, typer.Option(help="How often everything is measured; the medians are shown.", min=1, max=99, metavar="N")
    ] = 5,
    seconds: Annotated[
        float, typer.Option(help="How long each measurement takes, in each round.", min=0.5, max=600, metavar="SECONDS")
    ] = 2.0,
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

    Example: hsmsigner bench --rounds 9
    Example: hsmsigner bench --log 10000000 --directory /var/tmp
    """
    # gRPC writes of every closed connection otherwise, in this process and in those it starts.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    if log is not None:
        _bench_log(directory, log, check=check, as_json=as_json)
        return
    with _bench_directory(directory) as path:
        report = run_bench(path, BenchPlan(rounds, seconds, signatures), print_progress)
    print_progress("")
    if as_json:
        print_json(asdict(report))
    else:
        print_report(report)
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
        print_log_report(report)
    if check and report.missed:
        raise typer.Exit(ExitCode.REFUSED)
