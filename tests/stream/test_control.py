"""Controllers against plants of known behaviour, without a model."""

import math
import random

import pytest

from eventful.stream.control import ErrorControl, Held, LatencyControl

WINDOW = 50


def window_means(values):
    return [sum(values[i : i + WINDOW]) / WINDOW for i in range(len(values) - WINDOW + 1)]


def hold_error(plant, target=0.1, frames=400, every=10, gain=0.5):
    """Run a plant `signal(frame, left)` whose error is `gain(frame)` times its signal."""
    control, errors = ErrorControl(target, every), []
    for frame in range(frames):
        left = 0.3 if control.allowed is None else control.allowed
        signal = plant(frame, left)
        factor = gain(frame) if callable(gain) else gain
        error = factor * signal
        if control.due(signal, left):
            control.learn(error, signal, left, most=1.0)
        else:
            control.observe(signal, left, most=1.0)
            errors.append(error)
    return control, errors


def power(frame, left):
    """What real gates do: the signal grows with a power of what is left undone."""
    return left**0.6


AIM = ErrorControl.AIM


class TestError:
    @pytest.mark.parametrize("target", [0.01, 0.1, 0.3])
    def test_a_steady_plant_is_brought_to_the_aim(self, target):
        _, errors = hold_error(power, target)
        assert sum(errors[-200:]) / 200 == pytest.approx(AIM * target, rel=0.01)

    def test_a_jump_from_still_to_busy_is_held_in_every_window(self):
        def plant(frame, left):
            return power(frame, left) * (0.5 if frame < 200 else 1.5)

        _, errors = hold_error(plant)
        assert max(window_means(errors)) < 1.1 * 0.1
        assert min(window_means(errors)) > 0.88 * 0.1

    def test_a_jump_from_nothing_to_busy_is_held_too(self):
        _, errors = hold_error(lambda frame, left: power(frame, left) if frame >= 200 else 0.0)
        means = window_means(errors)
        assert max(means) < 1.1 * 0.1
        assert min(means[-100:]) > 0.88 * 0.1

    def test_noise_that_is_seen_leaves_the_mean(self):
        draw = random.Random(3)

        def plant(frame, left):
            return power(frame, left) * math.exp(draw.gauss(0, 0.25))

        _, errors = hold_error(plant, frames=800)
        means = window_means(errors)
        assert min(means) > 0.9 * 0.1
        assert max(means) < 1.1 * 0.1

    def test_noise_that_only_checks_see_errs_below_the_target(self):
        """The scatter found on real video: no estimate between checks can tell."""
        draw = random.Random(7)
        _, errors = hold_error(
            power, frames=8000, gain=lambda f: 0.5 * math.exp(draw.gauss(0, 0.27))
        )
        means = window_means(errors)
        assert 0.8 * 0.1 < sum(means) / len(means) < 0.95 * 0.1
        assert sum(mean > 1.1 * 0.1 for mean in means) < 0.05 * len(means)

    def test_a_gain_that_doubles_is_found_by_the_next_checks(self):
        control, errors = hold_error(power, gain=lambda frame: 0.3 if frame < 200 else 0.6)
        assert control.gain == pytest.approx(0.6)
        assert sum(errors[-100:]) / 100 == pytest.approx(AIM * 0.1, rel=0.02)

    def test_checks_come_soon_at_first_and_behind_cuts(self):
        control = ErrorControl(0.1, every=10)
        checked = []
        for frame in range(1, 60):
            if frame == 40:
                control.cut()
            if control.due(0.2, 0.4):
                control.learn(0.1, 0.2, 0.4, 1.0)
                checked.append(frame)
        assert checked == [1, 3, 7, 17, 27, 37, 41, 45, 55]

    def test_checks_wait_for_a_frame_that_holds_something_back(self):
        control = ErrorControl(0.1, every=10)
        signals = [0.2] * 20 + [0.0] * 11 + [0.2] * 10 + [0.0] * 40
        checked = []
        for frame, signal in enumerate(signals, 1):
            if control.due(signal, signal):
                control.learn(signal / 2, signal, signal, 1.0)
                checked.append(frame)
        assert checked == [1, 3, 7, 17, 32, 52, 72]

    def test_all_let_through_on_one_frame_does_not_last(self):
        """A response found on a frame that hardly changed would otherwise stay for ever."""
        control = ErrorControl(0.1, every=10)
        control.learn(0.1, 0.2, 1e-4, 1.0)
        allowed = control.allowed
        for _ in range(20):
            control.observe(0.0, 0.0, 1.0)
        assert control.allowed > 50 * allowed

    def test_a_credit_does_not_last(self):
        """Quiet for a hundred frames, then busy: no more than a few frames are paid for."""
        control = ErrorControl(0.1, every=10)
        control.learn(0.1, 0.2, 0.4, 1.0)
        for _ in range(100):
            control.observe(0.0, 0.0, 1.0)
        assert control.debt == -ErrorControl.CREDIT

    def test_a_check_sets_right_what_was_owed_since_the_last(self):
        control = ErrorControl(0.1, every=10)
        control.learn(0.095, 0.19, 0.4, 1.0)
        control.observe(0.19, 0.4, 1.0)  # at the aim, as far as it is known
        assert control.debt == pytest.approx(0)
        control.learn(0.285, 0.19, 0.4, 1.0)  # but the gain is twice as large
        assert control.gain == pytest.approx(1.0)
        assert control.debt == pytest.approx(1.0)

    def test_the_gain_rises_faster_than_it_falls(self):
        control = ErrorControl(0.1, every=10)
        for _ in range(8):
            control.learn(0.1, 0.2, 0.4, 1.0)
        for _ in range(3):
            control.learn(0.3, 0.2, 0.4, 1.0)
        assert control.gain == pytest.approx(1.5)
        for _ in range(3):
            control.learn(0.1, 0.2, 0.4, 1.0)
        assert control.gain == pytest.approx((0.9 + 0.5) / 1.6)

    def test_behind_a_cut_few_of_the_old_checks_count(self):
        control = ErrorControl(0.1, every=10)
        for error in (0.9, 0.9, 0.1, 0.1, 0.1):
            control.learn(error, 0.2, 0.4, 1.0)
        control.cut()
        assert control.gain == pytest.approx(0.5)

    def test_checks_that_tell_nothing_change_nothing(self):
        control = ErrorControl(0.1, every=10)
        for error, signal in ((0.0, 0.0), (0.0, 0.3), (math.nan, 0.1)):
            control.learn(error, signal, 0.3, 1.0)
        assert control.gain is None
        control.observe(0.3, 0.3, 1.0)
        assert control.allowed is None

    def test_a_state_goes_on_the_same(self):
        control, _ = hold_error(power, frames=77)
        twin, _ = hold_error(power, frames=33)
        twin.load(control.state())
        assert twin.state() == control.state()
        for each in (control, twin):
            each.observe(0.25, 0.3, 1.0)
        assert twin.allowed == control.allowed


def hold_time(plant, target=0.05, frames=400, tokens=400, start=100, limit=None):
    control, times = LatencyControl(target), []
    for frame in range(frames):
        count = start if control.count is None else control.count
        count = min(count, limit(frame)) if limit else count
        seconds = plant(frame, count)
        control.observe(seconds, count, tokens)
        times.append(seconds)
    return control, times


class TestTime:
    def test_an_affine_plant_is_held_in_every_window(self):
        _, times = hold_time(lambda frame, count: 0.02 + 0.0002 * count)
        means = window_means(times)
        assert min(means[10:]) > 0.9 * 0.05
        assert max(means) < 1.1 * 0.05

    def test_a_start_of_five_times_the_target(self):
        _, times = hold_time(lambda frame, count: 0.0025 * count, start=100)
        assert times[0] == 0.25
        assert max(times[2:]) < 1.1 * 0.05

    def test_a_machine_that_slows_down_to_half(self):
        _, times = hold_time(lambda f, count: (1 if f < 150 else 2) * (0.01 + 0.0002 * count))
        assert max(window_means(times[30:])) < 1.1 * 0.05
        assert times[-1] == pytest.approx(0.05, rel=0.02)

    def test_a_step_in_the_plant_is_held_in_the_mean(self):
        """As where full attention takes over: no number of tokens takes just the target."""
        _, times = hold_time(lambda f, count: 0.00025 * count + (0.02 if count > 160 else 0))
        means = window_means(times[50:])
        assert min(means) > 0.8 * 0.05
        assert max(means) < 1.1 * 0.05

    def test_noise(self):
        draw = random.Random(5)
        noisy = lambda f, count: (0.02 + 0.0002 * count) * math.exp(draw.gauss(0, 0.2))  # noqa: E731
        _, times = hold_time(noisy, frames=1000)
        means = window_means(times[50:])
        assert min(means) > 0.9 * 0.05
        assert max(means) < 1.1 * 0.05

    def test_what_cannot_be_reached_is_approached(self):
        control, times = hold_time(lambda frame, count: 0.08 + 0.0001 * count)
        assert control.count == 1
        assert times[-1] == pytest.approx(0.0801)

    def test_a_time_that_is_easily_held_runs_everything(self):
        control, _ = hold_time(lambda frame, count: 0.001 + 0.0001 * count)
        assert control.count == 400

    def test_a_number_set_by_something_else_does_not_wind_up(self):
        def limit(frame):
            return 50 if frame < 200 else 400

        _, times = hold_time(lambda frame, count: 0.0005 * count, limit=limit)
        assert max(times[201:]) < 1.1 * 0.05

    def test_a_state_goes_on_the_same(self):
        control, _ = hold_time(lambda frame, count: 0.02 + 0.0002 * count, frames=33)
        twin, _ = hold_time(lambda frame, count: 0.02 + 0.0002 * count, frames=7)
        twin.load(control.state())
        assert (twin.state(), twin.count) == (control.state(), control.count)


def test_what_is_said_of_a_target():
    assert Held(target=0.1).describe() == "asked for 0.1; nothing measured yet"
    met = Held(target=0.1, mean=0.1099, budget="top:7")
    assert met.describe() == "0.11 held, asked for 0.1: met, budget now (top:7)"
    assert not Held(target=0.1, mean=0.1101).met
    assert not Held(target=0.1, mean=math.nan).met
