"""SIGTERM and Ctrl-C ask; a second one acts; the handlers of before come back."""

import os
import signal
import threading

import pytest

from parsec.run.signals import StoppedError, graceful_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_once_and_the_old_handlers_return(number: int):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with graceful_stop() as stop:
        assert not stop
        assert signal.getsignal(number) is not before[0]
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal == number
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_second_ctrl_c_stops_at_once():
    with pytest.raises(KeyboardInterrupt), graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_nothing_is_installed():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with graceful_stop() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_the_error_says_what_asked_and_where_it_stopped():
    assert str(StoppedError(signal.SIGTERM, 12)) == "stopped by SIGTERM after step 12, saved"
