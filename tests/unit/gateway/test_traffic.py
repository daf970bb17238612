"""Which version answers, and which is asked beside."""

from random import Random

import pytest

from gateway.traffic import Canary, Shadow, Traffic, drawn_for, shadow_for, version_for

KEY = bytes(range(32))


def test_without_a_canary_the_stable_version_answers() -> None:
    """Whatever is drawn."""
    assert {version_for(Traffic(3), draw) for draw in (0.0, 0.5, 0.999)} == {3}


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 100])
def test_canary_answers_its_share(percent: float) -> None:
    """Over many draws, to within what chance explains."""
    random, traffic = Random(1), Traffic(3, Canary(4, percent))
    answered = sum(version_for(traffic, random.random()) == 4 for _ in range(20_000))
    assert answered / 200 == pytest.approx(percent, abs=0.8)


def test_sticky_caller_keeps_the_canary_as_it_grows() -> None:
    """Who has it at five percent has it at fifty, and about as many have it as are meant to."""
    callers = [f"caller-{number}" for number in range(4000)]

    def with_canary(percent: float) -> set[str]:
        traffic = Traffic(3, Canary(4, percent, sticky=True))
        return {one for one in callers if version_for(traffic, drawn_for(KEY, "cancer", traffic, one)) == 4}

    small, large = with_canary(5), with_canary(50)
    assert small < large
    assert len(small) / 40 == pytest.approx(5, abs=1.2)
    assert len(large) / 40 == pytest.approx(50, abs=2.5)


def test_draws_of_canaries_models_and_installations_are_unrelated() -> None:
    """Nobody is the one on whom everything is tried; and without the key nobody can tell who is."""
    four, five = Traffic(3, Canary(4, 5)), Traffic(3, Canary(5, 5))
    draws = {
        drawn_for(KEY, "cancer", four, "a"),
        drawn_for(KEY, "cancer", five, "a"),
        drawn_for(KEY, "anemia", four, "a"),
        drawn_for(bytes(32), "cancer", four, "a"),
        drawn_for(KEY, "cancer", four, "b"),
    }
    assert len(draws) == 5
    assert all(0 <= draw < 1 for draw in draws)


def test_shadow_is_asked_beside_its_share() -> None:
    """And never in the place of the version that answers."""
    traffic = Traffic(3, shadow=Shadow(4, 50))
    assert shadow_for(traffic, 3, 0.49) == 4
    assert shadow_for(traffic, 3, 0.5) is None
    assert shadow_for(Traffic(3), 3, 0.0) is None
    assert traffic.versions == {3, 4}


def test_stable_version_is_asked_what_the_canary_answered() -> None:
    """Only so is it known whether the two agree."""
    assert shadow_for(Traffic(3, Canary(4, 10), Shadow(5, 100)), 4, 0.9) == 3
