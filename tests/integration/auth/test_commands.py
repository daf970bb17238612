"""The `healthguard auth …` commands, run as an operator runs them."""

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import factories
from tests.databases import ROOT
from tests.postgres import Postgres


@pytest.fixture(scope="module")
def environment(postgres: Postgres) -> dict[str, str]:
    """Return the environment of an auth service whose database is empty."""
    dsn = postgres.create_database("auth_commands")
    return {
        "AUTH_DSN": dsn,
        "AUTH_KEY_ENCRYPTION_KEY": base64.b64encode(os.urandom(32)).decode(),
        "AUTH_PASSWORD_PROFILE": "owasp-minimum",
    }


def start(*arguments: str, env: dict[str, str]) -> "subprocess.Popen[str]":
    """Start a command; its standard input is a pipe, as in a script."""
    program = "from auth.commands import app; app(prog_name='healthguard auth')"
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], env=os.environ | env, cwd=ROOT, text=True, **pipes
    )


def run(*arguments: str, env: dict[str, str], stdin: str = "") -> tuple[int, str, str]:
    """Run a command and return its exit status and what it printed."""
    with start(*arguments, env=env) as process:
        out, err = process.communicate(stdin, timeout=60)
    return process.returncode, out, err


@contextlib.contextmanager
def held_session(postgres: Postgres, database: str, sql: str) -> Iterator[None]:
    """Run *sql* in a session of the superuser for the block; its locks go with it."""
    cluster = postgres.cluster
    psql = [cluster.installation.program("psql"), "-X", "-q", "-d", database, "-c", sql]
    env = {"PGHOST": str(cluster.socket_folder()), "PGUSER": "postgres", "PGPASSWORD": cluster.password}
    with subprocess.Popen(psql, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 30
            holds = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            while cluster.run_sql(holds) == "0":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield
        finally:
            # Ending psql alone would leave its session asleep in the server, with the lock.
            cluster.run_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)'")
            process.wait(30)


def test_migrate_twice_at_once_takes_each_step_once(environment: dict[str, str], postgres: Postgres) -> None:
    """Two deployments that migrate at the same time queue, and both succeed; one finds the work done."""
    # Both are held at the lock, so that they surely meet there.
    hold = "SELECT pg_advisory_lock(4820001); SELECT pg_sleep(60)"
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with held_session(postgres, "auth_commands", hold):
        processes = [start("migrate", "--json", env=environment) for _ in range(2)]
        deadline = time.monotonic() + 60
        while (seen := postgres.cluster.run_sql(waiting)) != "2":
            assert time.monotonic() < deadline, f"{seen} of 2 migrations wait for the lock"
            time.sleep(0.05)
    outcomes = []
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out))

    assert sorted((outcome["before"] or "", outcome["after"]) for outcome in outcomes) == [
        ("", "0002"),
        ("0002", "0002"),
    ]


def test_create_user_generates_a_password_and_prints_it_once(environment: dict[str, str]) -> None:
    """The answer has what is needed to log in; the same e-mail again is an error that says so."""
    run("migrate", env=environment)
    email = factories.email()

    status, out, _ = run("create-user", "--email", email, "--role", "admin", "--generate", "--json", env=environment)
    again, _, err = run("create-user", "--email", email, "--generate", env=environment)

    made = json.loads(out)
    assert (status, made["email"], made["role"]) == (0, email, "admin")
    assert len(made["password"]) == 20
    assert (again, err.strip()) == (1, "This e-mail is registered already")


def test_create_user_reads_the_password_from_standard_input(environment: dict[str, str]) -> None:
    """A script pipes the password in, which is then not on a command line; a weak one is refused."""
    run("migrate", env=environment)

    taken = run("create-user", "--email", factories.email(), env=environment, stdin="a long enough one\n")
    refused = run("create-user", "--email", factories.email(), env=environment, stdin="password123\n")

    assert taken[0] == 0
    assert "a long enough one" not in taken[1] + taken[2]
    assert refused[0] == 1


def test_rotate_keys_prints_the_new_key(environment: dict[str, str]) -> None:
    """The answer names the key and when it comes into use."""
    run("migrate", env=environment)

    status, out, _ = run("rotate-keys", "--json", env=environment)

    assert status == 0
    assert json.loads(out).keys() == {"kid", "use_from"}


def test_commands_name_a_missing_or_wrong_setting(environment: dict[str, str]) -> None:
    """What is missing is named; what was given is not repeated."""
    missing = run("migrate", env=environment | {"AUTH_DSN": ""})
    wrong = run("rotate-keys", env=environment | {"AUTH_KEY_ENCRYPTION_KEY": "c2hvcnQtY2FuYXJ5"})

    assert (missing[0], "AUTH_DSN" in missing[2]) == (2, True)
    assert (wrong[0], "AUTH_KEY_ENCRYPTION_KEY" in wrong[2], "c2hvcnQtY2FuYXJ5" in wrong[2]) == (2, True, False)
