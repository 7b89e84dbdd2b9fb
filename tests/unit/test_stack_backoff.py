"""When a program is started again, and when it is given up."""

from __future__ import annotations

from veilstream.stack.backoff import RestartRule

RULE = RestartRule()


def test_delays_double_up_to_ten_seconds_and_then_end() -> None:
    delays = [RULE.delay_s(deaths, ever_ready=True) for deaths in range(1, 13)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0, 10.0, None]


def test_what_was_never_ready_is_given_up_early() -> None:
    assert [RULE.delay_s(deaths, ever_ready=False) for deaths in range(1, 4)] == [0.2, 0.4, None]


def test_a_good_life_forgives_all_before() -> None:
    assert RULE.deaths_after(6, ready_s=14.9) == 7
    assert RULE.deaths_after(6, ready_s=15.0) == 1
