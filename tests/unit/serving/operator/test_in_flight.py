"""What is in flight is an average of what is known, and nothing where something is not."""

from serving.operator.in_flight import FOLLOWED_MAX, FORGET_S, SAMPLES_MIN, WINDOW_S, InFlight


class World:
    """A clock that a test moves, and a gauge that it sets."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.gauge: float | None = 0.0
        self.asked: list[tuple[str, str]] = []
        self.in_flight = InFlight(self.look, lambda: self.now_s)

    def look(self, namespace: str, model: str) -> float | None:
        """Return the gauge, and remember who it was asked for."""
        self.asked.append((namespace, model))
        return self.gauge

    def sample(self, *gauges: float | None) -> None:
        """Let three seconds go by before each look."""
        for gauge in gauges:
            self.now_s, self.gauge = self.now_s + 3.0, gauge
            self.in_flight.sample()


def test_average_is_of_the_last_seconds() -> None:
    """Of none that is older than the window."""
    world = World()
    world.in_flight.average("clinic", "cancer")
    world.sample(100.0, *[2.0, 4.0] * 3)
    assert world.now_s - 3.0 > WINDOW_S
    assert world.in_flight.average("clinic", "cancer") == 3.0


def test_unknown_now_is_unknown() -> None:
    """When a gateway cannot be read, yesterday's quiet must not shrink anything, nor its load grow it."""
    world = World()
    world.in_flight.average("clinic", "cancer")
    world.sample(4.0, 4.0, 4.0, 4.0, None)
    assert world.in_flight.average("clinic", "cancer") is None
    world.sample(0.0)
    assert world.in_flight.average("clinic", "cancer") == 3.2


def test_few_looks_are_no_average() -> None:
    """One look between two requests would shrink a busy model, each time that an operator starts or hears again."""
    world = World()
    world.in_flight.average("clinic", "cancer")
    world.sample(*[0.0] * (SAMPLES_MIN - 1))
    assert world.in_flight.average("clinic", "cancer") is None
    world.sample(8.0)
    assert world.in_flight.average("clinic", "cancer") == 2.0


def test_only_what_is_asked_for_is_looked_at() -> None:
    """A model that no autoscaler asks for costs nothing, and is forgotten after a while."""
    world = World()
    world.in_flight.sample()
    assert world.asked == []
    world.in_flight.average("clinic", "cancer")
    world.sample(1.0)
    assert ("clinic", "cancer") in world.asked
    world.now_s += FORGET_S + 1
    world.asked.clear()
    world.in_flight.sample()
    assert world.asked == []


def test_models_that_are_followed_are_bounded() -> None:
    """Whoever asks for ever new names gets answers, and fills no memory."""
    world = World()
    for number in range(FOLLOWED_MAX + 10):
        assert world.in_flight.average("clinic", f"m{number}") is None
    world.asked.clear()
    world.in_flight.sample()
    assert len(world.asked) == FOLLOWED_MAX
