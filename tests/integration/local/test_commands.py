"""The commands beside `predict`, on a whole product: accounts, history, and errors that a program reads."""

import json

import pytest

from healthguard.lines import DEMONSTRATION
from models import artifact
from tests import committed
from tests.integration.local.product import Up

CREATE = ("auth", "create-user", "--role", "doctor", "--generate", "--json")


def test_exec_adds_a_user_who_can_log_in(product: Up) -> None:
    """A person who lost the demo password gets in, with no setting named; the second try is an error in JSON."""
    arguments = ("exec", "--data-dir", str(product.data.path), *CREATE, "--email", "second@example.org")
    made = json.loads(product.run(*arguments).stdout)
    url = product.url.replace("127.0.0.1", "localhost")
    login = product.run("login", "--email", made["email"], "--url", url, stdin=f"{made['password']}\n")
    assert (login.returncode, product.run("logout", "--url", url).returncode) == (0, 0), login.stderr
    again = product.run(*arguments)
    assert again.returncode == 1
    assert json.loads(again.stdout)["error"]["message"]


def test_register_opens_an_account_and_logs_in(product: Up) -> None:
    """Whoever has no account gets one by the command alone; a second one for the e-mail is refused with a problem."""
    url = product.url.replace("127.0.0.1", "localhost")
    arguments = ("register", "--email", "new@example.org", "--url", url, "--json")
    first = product.run(*arguments, stdin="a long enough password\n")
    assert first.returncode == 0, first.stdout
    assert json.loads(product.run("stats", "--url", url, "--json").stdout)["total"] == 0
    assert product.run("logout", "--url", url).returncode == 0
    second = product.run(*arguments, stdin="a long enough password\n")
    assert (second.returncode, json.loads(second.stdout)["error"]["problem"]["status"]) == (1, 409)


@pytest.mark.parametrize("as_json", [True, False])
def test_history_show_models_and_stats_answer(product: Up, as_json: bool) -> None:
    """What `predict` stored is listed first, shown by its id and counted; its weights are called a demonstration."""
    case = artifact.golden(committed.folder("cancer")).cases[0].path
    made = product.run("predict", str(case), "--model", "cancer", "--url", product.url)
    assert made.stdout.splitlines()[-1] == DEMONSTRATION
    made_id = made.stdout.splitlines()[0].split()[-1]
    calls = (("history", "--limit", "1"), ("show", made_id), ("models",), ("stats",))
    shown = [product.run(*call, "--url", product.url, *["--json"] * as_json) for call in calls]
    assert [done.returncode for done in shown] == [0, 0, 0, 0]
    assert all(made_id in done.stdout for done in shown[:2])
    assert all("cancer" in done.stdout for done in shown)
    if as_json:
        assert all(isinstance(json.loads(line), dict) for done in shown for line in done.stdout.splitlines())


def test_second_up_names_the_folder_to_stop(product: Up) -> None:
    """The ports are taken too, but that it runs is what the person must know; the line to stop it names the folder."""
    port = product.url.rpartition(":")[2]
    for detach in ((), ("--detach",)):
        done = product.run("up", "--data-dir", str(product.data.path), "--port", port, *detach)
        assert done.returncode == 2
        assert "already runs" in done.stderr
        assert f"down --data-dir {product.data.path}" in done.stderr
