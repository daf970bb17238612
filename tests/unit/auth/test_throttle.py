"""Slowing down guesses: what counts against whom."""

import pytest

from auth import throttle as module
from auth.problems import TooManyAttempts
from auth.throttle import ACCOUNT, FORGET_S, SOURCE, Attempt, Throttle

ADA, HOME, STRANGER = "ada@example.org", "192.0.2.1", "203.0.113.9"


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock at some time."""
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    """Return a throttle by that clock."""
    return Throttle(clock=clock)


def guess(throttle: Throttle, times: int, account: str = ADA, source: str = STRANGER) -> list[Attempt]:
    """Make attempts that fail."""
    return [throttle.admit(account, source) for _ in range(times)]


def wait_of(throttle: Throttle, account: str = ADA, source: str = STRANGER) -> float:
    """Return how long the next attempt must wait, in seconds, without making one."""
    try:
        throttle.admit(account, source).not_made()
    except TooManyAttempts as refused:
        return float(refused.extra["retry_after_ms"]) / 1000
    return 0.0


def test_waits_double_up_to_a_quarter_of_an_hour(throttle: Throttle, clock: Clock) -> None:
    """Ten attempts are free; then each waits twice as long as the one before."""
    guess(throttle, ACCOUNT.free)
    waits = []
    for _ in range(12):
        waits.append(wait := wait_of(throttle))
        clock.now += wait
        guess(throttle, 1)

    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_refused_attempts_do_not_count(throttle: Throttle, clock: Clock) -> None:
    """Knocking during the wait does not lengthen it."""
    guess(throttle, ACCOUNT.free)
    for _ in range(50):
        assert wait_of(throttle) == 1.0
    clock.now += 1

    assert wait_of(throttle) == 0


def test_guesses_from_many_places_add_up(throttle: Throttle) -> None:
    """An account's count does not start again with each address."""
    for place in range(ACCOUNT.free):
        guess(throttle, 1, source=f"198.51.100.{place}")

    assert wait_of(throttle, source="198.51.100.200") > 0


def test_unanswered_attempts_count_at_once(throttle: Throttle) -> None:
    """Many guesses in flight are bounded like many in a row: none has to fail first."""
    attempts = guess(throttle, ACCOUNT.free)

    assert wait_of(throttle) > 0
    attempts[0].not_made()
    assert wait_of(throttle) == 0


def test_known_place_is_not_locked_out_by_strangers(throttle: Throttle) -> None:
    """Where the owner logged in before, a stranger's guesses do not count; the stranger still waits."""
    throttle.admit(ADA, HOME).succeeded()
    guess(throttle, ACCOUNT.free)

    assert wait_of(throttle, source=STRANGER) > 0
    assert wait_of(throttle, source=HOME) == 0


def test_known_place_is_counted_for_itself(throttle: Throttle) -> None:
    """Being known is no licence to guess."""
    throttle.admit(ADA, HOME).succeeded()
    guess(throttle, ACCOUNT.free, source=HOME)

    assert wait_of(throttle, source=HOME) > 0
    assert wait_of(throttle, source=STRANGER) == 0


def test_success_starts_the_count_again(throttle: Throttle) -> None:
    """Who gets it right at the tenth try has ten free tries again."""
    guess(throttle, ACCOUNT.free - 1)
    throttle.admit(ADA, STRANGER).succeeded()
    guess(throttle, ACCOUNT.free - 1)

    assert wait_of(throttle) == 0


def test_source_is_slowed_down_over_all_accounts(throttle: Throttle) -> None:
    """One password tried on a hundred accounts is noticed at the source, and only there."""
    for number in range(SOURCE.free):
        guess(throttle, 1, account=f"{number}@example.org")

    assert wait_of(throttle, account="fresh@example.org") > 0
    assert wait_of(throttle, account="fresh@example.org", source=HOME) == 0


def test_source_cannot_clear_its_count_with_an_account_of_its_own(throttle: Throttle) -> None:
    """A right password in between takes back that one attempt, not the guesses."""
    for number in range(SOURCE.free - 1):
        guess(throttle, 1, account=f"{number}@example.org")
        throttle.admit("own@example.org", STRANGER).succeeded()
    guess(throttle, 1, account="last@example.org")

    assert wait_of(throttle, account="fresh@example.org") > 0


def test_source_is_forgiven_as_time_goes_by(throttle: Throttle, clock: Clock) -> None:
    """A hospital behind one address mistypes all day: six failures a minute are forgotten."""
    for number in range(SOURCE.free):
        guess(throttle, 1, account=f"{number}@example.org")
    clock.now += 60
    for number in range(6):
        assert wait_of(throttle, account=f"later-{number}@example.org") == 0
        guess(throttle, 1, account=f"later-{number}@example.org")

    assert wait_of(throttle, account="fresh@example.org") > 0


def test_busy_source_does_not_hold_up_who_is_known_there(throttle: Throttle) -> None:
    """Whatever others do behind the same address, people log in where they did before."""
    throttle.admit(ADA, HOME).succeeded()
    for number in range(SOURCE.free):
        guess(throttle, 1, account=f"{number}@example.org", source=HOME)

    assert wait_of(throttle, account="fresh@example.org", source=HOME) > 0
    assert wait_of(throttle, account=ADA, source=HOME) == 0


def test_registrations_count_for_their_source(throttle: Throttle) -> None:
    """Registering, which tells whether an e-mail is taken, is slowed down as well."""
    for _ in range(SOURCE.free):
        throttle.admit_source(STRANGER)

    with pytest.raises(TooManyAttempts):
        throttle.admit_source(STRANGER)
    throttle.admit_source(HOME)


def test_counts_are_forgotten_after_an_hour(throttle: Throttle, clock: Clock) -> None:
    """Yesterday's failures do not count."""
    guess(throttle, ACCOUNT.free)
    clock.now += FORGET_S + 1
    guess(throttle, ACCOUNT.free - 1)

    assert wait_of(throttle) == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """However many accounts and places are tried, no more entries are kept than the bound says."""
    monkeypatch.setattr(module, "ENTRIES_MAX", 10)
    throttle = Throttle(clock=clock)

    for number in range(200):
        throttle.admit(f"{number}@example.org", f"place {number}")
        throttle.admit(f"{number}@example.org", f"place {number}").succeeded()

    kept = [throttle._by_account, throttle._by_place, throttle._by_source]
    assert max(len(counters._by_key) for counters in kept) <= 10
    assert len(throttle._known) <= 10
