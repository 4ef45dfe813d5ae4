"""How a command ends, seen from the shell: real child processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import signal, sys, click, trio, trio.testing
from agentstream.cli import shell
from agentstream import errors

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whoever runs the tests may ignore some
    signal.signal(number, signal.SIG_DFL)

@click.command()
def command():
    shell.run(main)

"""


def child(code: str) -> subprocess.Popen[str]:
    program = PRELUDE + textwrap.dedent(code) + "\ncommand()\n"
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def ended(code: str) -> tuple[int, str, str]:
    with child(code) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_the_exit_status_is_the_commands() -> None:
    assert ended("async def main(): print('done'); return 3") == (3, "done\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_130_and_no_word(number: signal.Signals) -> None:
    with child("async def main(): print('ready', flush=True); await trio.sleep_forever()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_a_signal_that_the_parent_ignores_stays_ignored() -> None:
    code = """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    async def main():
        signal.raise_signal(signal.SIGHUP)
        await trio.testing.wait_all_tasks_blocked()
        print("still here")
        return 0
    """
    assert ended(textwrap.dedent(code)) == (0, "still here\n", "")


def test_all_signals_may_be_ignored() -> None:
    code = """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    async def main(): return 0
    """
    assert ended(textwrap.dedent(code)) == (0, "", "")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("errors.Conflict('it has ended')", "Error: it has ended\n"),
        ("errors.NotFound('no\\n\\x1b[2Jsuch run')", "Error: no ␛[2Jsuch run\n"),
        (
            "errors.Unreachable('nobody')",
            "Error: nobody; start a daemon with 'agentstream serve', or name one with --url\n",
        ),
        ("FileNotFoundError(2, 'No such file', '/x/y')", "Error: /x/y: No such file\n"),
    ],
)
def test_an_error_is_one_line_and_status_1(raised: str, expected: str) -> None:
    assert ended(f"async def main(): raise {raised}") == (1, "", expected)


def test_no_token_says_where_one_is() -> None:
    status, _, err = ended("async def main(): raise errors.Unauthorized('who are you?')")
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "--token" in err
    assert "AGENTSTREAM_TOKEN" in err


def test_a_bug_keeps_its_traceback() -> None:
    status, _, err = ended("async def main(): return 1 // 0")
    assert status == 1
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("flush", [True, False])
def test_a_reader_that_had_enough_ends_it_quietly(flush: bool) -> None:
    code = f"""
    async def main():
        await trio.to_thread.run_sync(sys.stdin.read)
        print("too late", flush={flush})
        return 0
    """
    program = PRELUDE + textwrap.dedent(code) + "\ncommand()\n"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


def test_a_terminal_without_unicode_gets_another_character() -> None:
    code = "async def main(): print('✔'); return 0"
    program = PRELUDE + code + "\ncommand()\n"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True, timeout=60
    )
    assert done.stdout == b"?\n"
