"""A demo agent: no model, no account, real work, and Claude Code's stream-json on stdout.

It shows the whole product without a login, and gives tests and benchmarks an agent whose behaviour is known. What it says comes
from a script, and everything that it prints says so ("Demo: ...", model ``demo``, cost 0; its ``usage`` counts words, as there are
no tokens). What it does is real: files are read, written and edited below ``demo/`` in the working directory, commands run in a
shell whose session is its own (as all agent CLIs do), tests fail and then pass.

The dialect is that of Claude Code 2.1 as recorded (tests/recordings/claude): ``system/init`` for each turn, one content block
per ``assistant`` line, ``user`` lines with tool results, one ``result`` for each turn; with ``--input-format stream-json`` also
follow-up messages (one that comes during a turn joins it) and the control protocol: initialize, interrupt, can_use_tool. SIGINT
ends it with an error result, as Claude does.

One thread: whoever waits (for the pace, a command, an answer) waits in `Wire.wait`, which reads stdin meanwhile and
raises `Interrupted`. Standard library only, and started by its path with ``python -I -S``, so that nothing in the workspace
can be imported by mistake; that is also why it is one file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = "demo-1"
TOOLS = ["Bash", "Edit", "Glob", "Grep", "Read", "TodoWrite", "Write"]
#: Only these ask for permission, as with Claude's default permission mode.
ASKED = frozenset({"Bash", "Edit", "Write"})
REJECTED = (
    "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. if it was a file edit, the new_string "
    "was NOT written to the file). STOP what you are doing and wait for the user to tell you how to proceed."
)
#: Characters of a command's output that go into its result; Claude has the same bound.
MAX_OUTPUT = 30_000


class Interrupted(Exception):
    """The turn was stopped: by the interrupt request, by a denial with ``interrupt``, or by SIGINT."""


class Denied(Exception):
    """A tool may not be used; the text is what the operator said."""


class Wire:
    """Lines in from stdin, lines out to stdout, and the one place that waits."""

    def __init__(self, *, streaming: bool) -> None:
        self.streaming = streaming
        self.messages: deque[str] = deque()
        self.answers: dict[str, dict[str, Any]] = {}
        self.eof = not streaming
        self.signalled = False
        self._buffer = b""
        self._looks = 0
        # A signal makes select return through this pipe: select itself is restarted after a signal (PEP 475).
        self._woken, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, self._on_sigint)

    def _on_sigint(self, *_: object) -> None:
        self.signalled = True

    def send(self, line: dict[str, Any]) -> None:
        sys.stdout.write(_encode(line) + "\n")
        sys.stdout.flush()

    def wait(self, seconds: float | None = None, *, also: int | None = None) -> bool:
        """Wait at most ``seconds`` (None: for ever) for stdin, a signal or the descriptor ``also``; True: ``also`` is ready.

        Raises `Interrupted` when the turn is to stop.
        """
        if self.signalled:
            raise Interrupted
        watched = [self._woken, *([] if self.eof else [0]), *([] if also is None else [also])]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self.signalled:
            raise Interrupted
        if 0 in ready and also != 0:
            self._read()
        return also in ready

    def pause(self, seconds: float) -> None:
        """Spend time as a person would watch it, with an ear on stdin."""
        if not seconds:
            # Without a pace thousands of lines a second are printed; a look at stdin for each would be most of the work.
            self._looks += 1
            if self._looks % 16 == 0 or self.signalled:
                self.wait(0)
            return
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.wait(left)

    def _read(self) -> None:
        chunk = os.read(0, 1 << 16)
        if not chunk:
            self.eof = True
            return
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            kind = message["type"]
        except (ValueError, KeyError, TypeError):
            sys.exit(f"Error parsing streaming input line: {line[:80].decode(errors='replace')}")
        if kind == "user":
            self.messages.append(_text(message.get("message", {}).get("content", "")))
        elif kind == "control_response":
            response = message.get("response", {})
            self.answers[response.get("request_id", "")] = response.get("response") or {}
        elif kind == "control_request":
            subtype = message.get("request", {}).get("subtype")
            response = {"subtype": "success", "request_id": message.get("request_id")}
            if subtype == "initialize":
                response["response"] = {"commands": [], "output_style": "default", "models": [{"value": "demo"}]}
            self.send({"type": "control_response", "response": response})
            if subtype == "interrupt":
                raise Interrupted


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return str(content)


class Agent:
    """One session: says things, uses tools, and prints both as Claude does."""

    def __init__(self, wire: Wire, options: argparse.Namespace) -> None:
        self.wire = wire
        self.pace: float = options.pace
        self.count: int = options.count
        self.asks: bool = options.permission_prompt_tool == "stdio" and wire.streaming
        self.partial: bool = options.include_partial_messages
        self.mode: str = options.permission_mode
        self.session_id: str = options.resume or str(uuid.uuid4())
        self.cwd = Path.cwd()
        self.python = "python3" if shutil.which("python3") else sys.executable
        self.turns = 0
        self.words_in = 0
        self.words_out = 0
        self.denials: list[dict[str, Any]] = []
        self.todos: list[dict[str, str]] = []
        self._line_prefix = str(uuid.uuid4())[:24]
        self._lines = 0
        self._calls = 0
        self._messages = 0
        self._message_id = ""
        self._open_call: str | None = None
        self._child: subprocess.Popen[bytes] | None = None

    # --- lines ---------------------------------------------------------------------------------------------------

    def line(self, kind: str, **fields: Any) -> None:
        self._lines += 1
        line_id = f"{self._line_prefix}{self._lines:012x}"
        self.wire.send({"type": kind, **fields, "session_id": self.session_id, "uuid": line_id})

    def init(self) -> None:
        self.line(
            "system",
            subtype="init",
            cwd=str(self.cwd),
            tools=TOOLS,
            mcp_servers=[],
            model="demo",
            permissionMode=self.mode,
            slash_commands=[],
            apiKeySource="none",
            claude_code_version=VERSION,
            output_style="default",
        )

    def _block(self, block: dict[str, Any]) -> None:
        message = {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": "demo",
            "content": [block],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        self.line("assistant", message=message, parent_tool_use_id=None)

    def _next_message(self) -> None:
        self._messages += 1
        self._message_id = f"msg_demo_{self._messages:04d}"
        self.turns += 1

    def say(self, text: str) -> None:
        """Say something, word by word where partial messages are asked for."""
        self._next_message()
        self.words_out += len(text.split())
        if self.partial:
            self._stream(text)
        self._block({"type": "text", "text": text})
        self.wire.pause(self.pace)

    def _stream(self, text: str) -> None:
        def event(**fields: Any) -> None:
            self.line("stream_event", event=fields, parent_tool_use_id=None)

        event(type="message_start", message={"id": self._message_id, "type": "message", "role": "assistant"})
        event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
        for piece in re.findall(r"\S*\s*", text)[:-1]:
            event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": piece})
            self.wire.pause(self.pace / 20)
        event(type="content_block_stop", index=0)
        event(type="message_stop")

    def think(self, text: str) -> None:
        self._next_message()
        self._block({"type": "thinking", "thinking": text, "signature": ""})
        self.wire.pause(self.pace)

    def _tool_result(self, content: str, *, failed: bool, detail: object) -> None:
        block: dict[str, Any] = {"tool_use_id": self._open_call, "type": "tool_result", "content": content}
        self._open_call = None
        self.words_in += len(content.split())
        self.line(
            "user",
            message={"role": "user", "content": [block | {"is_error": failed}]},
            parent_tool_use_id=None,
            timestamp=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            tool_use_result=f"Error: {content}" if failed else detail,
        )

    def tool(self, name: str, action: Callable[..., tuple[bool, str]], **tool_input: Any) -> bool:
        """Call a tool: print the call, ask where asking is due, do it, print its result. True: it succeeded."""
        self._calls += 1
        self._next_message()
        self._open_call = f"toolu_demo_{self._calls:04d}"
        self._block({"type": "tool_use", "id": self._open_call, "name": name, "input": tool_input})
        try:
            if self.asks and name in ASKED:
                tool_input = self._ask(name, tool_input)
            succeeded, content = action(**tool_input)
        except Denied as denial:
            self.denials.append({"tool_name": name, "tool_use_id": self._open_call, "tool_input": tool_input})
            succeeded, content = False, str(denial)
        except OSError as error:
            succeeded, content = False, f"{error.strerror}: {error.filename}"
        self._tool_result(content, failed=not succeeded, detail={"type": "text"})
        self.wire.pause(self.pace)
        return succeeded

    def _ask(self, name: str, tool_input: dict[str, Any]) -> dict[str, Any]:
        request_id = str(uuid.uuid4())
        request = {
            "subtype": "can_use_tool",
            "tool_name": name,
            "display_name": name,
            "input": tool_input,
            "tool_use_id": self._open_call,
        }
        self.wire.send({"type": "control_request", "request_id": request_id, "request": request})
        try:
            while request_id not in self.wire.answers and not self.wire.eof:
                self.wire.wait()
        except Interrupted:
            self.wire.send({"type": "control_cancel_request", "request_id": request_id})
            raise
        answer = self.wire.answers.pop(request_id, {"behavior": "deny", "message": "Tool permission stream closed"})
        if answer.get("behavior") == "allow":
            updated = answer.get("updatedInput")
            return updated if isinstance(updated, dict) and updated.keys() == tool_input.keys() else tool_input
        if answer.get("interrupt"):
            raise Interrupted
        raise Denied(answer.get("message") or "Permission was denied.")

    # --- turns ---------------------------------------------------------------------------------------------------

    def turn(self, work: Callable[[Agent, str], str], prompt: str) -> bool:
        """One turn, from ``init`` to ``result``; messages that come meanwhile join it. True: it was not interrupted."""
        started = time.monotonic()
        self.turns = self.words_in = self.words_out = 0
        self.denials = []
        self.words_in += len(prompt.split())
        self.init()
        try:
            text = work(self, prompt)
            self.wire.wait(0)
            while self.wire.messages:
                text = follow_up(self, self.wire.messages.popleft())
        except Interrupted:
            self._abort()
            self._result(started, subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools")
            return False
        self._result(started, subtype="success", is_error=False, result=text, terminal_reason="completed")
        return True

    def _abort(self) -> None:
        if self._child is not None:
            _kill(self._child)
            self._child = None
        text = "[Request interrupted by user]"
        if self._open_call is not None:
            self._tool_result(REJECTED, failed=True, detail=None)
            text = "[Request interrupted by user for tool use]"
        self.line(
            "user", message={"role": "user", "content": [{"type": "text", "text": text}]}, parent_tool_use_id=None
        )

    def _result(self, started: float, **fields: Any) -> None:
        duration = round((time.monotonic() - started) * 1000)
        usage = {"input_tokens": self.words_in, "output_tokens": self.words_out}
        self.line(
            "result",
            duration_ms=duration,
            duration_api_ms=0,
            num_turns=self.turns,
            total_cost_usd=0,
            usage=usage,
            modelUsage={},
            permission_denials=self.denials,
            **fields,
        )

    # --- tools ---------------------------------------------------------------------------------------------------

    def bash(self, command: str, description: str) -> bool:
        return self.tool("Bash", self._run, command=command, description=description)

    def _run(self, command: str, description: str) -> tuple[bool, str]:
        self._child = child = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert child.stdout is not None
        pipe = child.stdout.fileno()
        output = b""
        while True:
            if self.wire.wait(also=pipe):
                chunk = os.read(pipe, 1 << 16)
                if not chunk:
                    break
                output = (output + chunk)[:MAX_OUTPUT]
        child.stdout.close()
        status = child.wait()
        self._child = None
        text = output.decode(errors="replace").rstrip("\n")
        if status:
            return False, f"Exit code {status}\n{text}"
        return True, text or "(Bash completed with no output)"

    def read(self, path: str) -> bool:
        def action(file_path: str) -> tuple[bool, str]:
            lines = Path(file_path).read_text(errors="replace")[:MAX_OUTPUT].split("\n")
            return True, "\n".join(f"{number}\t{line}" for number, line in enumerate(lines, 1))

        return self.tool("Read", action, file_path=str(self.cwd / path))

    def write(self, path: str, content: str) -> bool:
        def action(file_path: str, content: str) -> tuple[bool, str]:
            target = Path(file_path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            return True, f"File created successfully at: {file_path}"

        return self.tool("Write", action, file_path=str(self.cwd / path), content=content)

    def edit(self, path: str, old: str, new: str) -> bool:
        def action(file_path: str, old_string: str, new_string: str, **_: object) -> tuple[bool, str]:
            target = Path(file_path)
            text = target.read_text()
            if old_string not in text:
                return False, f"String to replace not found in file.\nString: {old_string}"
            target.write_text(text.replace(old_string, new_string, 1))
            return True, f"The file {file_path} has been updated successfully."

        return self.tool(
            "Edit", action, replace_all=False, file_path=str(self.cwd / path), old_string=old, new_string=new
        )

    def glob(self, pattern: str) -> list[str]:
        """Files of the workspace that match, at most 100; hidden ones are left out."""
        found: list[str] = []

        def action(pattern: str) -> tuple[bool, str]:
            for path in sorted(self.cwd.glob(pattern)):
                relative = path.relative_to(self.cwd)
                if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                    found.append(str(relative))
                if len(found) == 100:
                    break
            return True, "\n".join(found) or "No files found"

        self.tool("Glob", action, pattern=pattern)
        return found

    def grep(self, pattern: str, path: str) -> bool:
        def action(pattern: str, path: str, **_: object) -> tuple[bool, str]:
            lines = enumerate((self.cwd / path).read_text(errors="replace").split("\n"), 1)
            hits = [f"{path}:{number}:{line}" for number, line in lines if re.search(pattern, line)]
            return True, "\n".join(hits) or "No matches found"

        return self.tool("Grep", action, pattern=pattern, path=path, output_mode="content")

    def plan(self, *items: str, done: int = 0) -> None:
        """Show the to-do list ``items``, of which the first ``done`` are completed and the next one is under way."""
        states = ["completed"] * done + ["in_progress"] + ["pending"] * len(items)
        self.todos = [
            {"content": item, "status": state, "activeForm": item} for item, state in zip(items, states, strict=False)
        ]
        self.tool("TodoWrite", lambda todos: (True, "Todos have been modified successfully."), todos=self.todos)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


# --- what it does ----------------------------------------------------------------------------------------------------

MODULE = '''"""Count the words of a text."""

import re
import sys


def count_words(text: str) -> dict[str, int]:
    """How often each word occurs, upper and lower case alike."""
    counts: dict[str, int] = {}
    for word in re.findall(r"[a-z']+", text):
        counts[word] = counts.get(word, 0) + 1
    return counts


if __name__ == "__main__":
    counts = count_words(open(sys.argv[1]).read())
    for word, count in sorted(counts.items(), key=lambda item: -item[1])[:5]:
        print(f"{count:4} {word}")
'''
TESTS = """import unittest

from words import count_words


class CountWords(unittest.TestCase):
    def test_counts(self):
        self.assertEqual(count_words("a b a"), {"a": 2, "b": 1})

    def test_case_does_not_matter(self):
        self.assertEqual(count_words("The the THE"), {"the": 3})

    def test_nothing(self):
        self.assertEqual(count_words(""), {})


if __name__ == "__main__":
    unittest.main()
"""
README = """# Words

Counts the words of a text. Made by the demo agent: no model wrote this.

    python3 words.py README.md
"""
SUMMARY = """## Demo: done

I wrote a small word counter, found a bug with its own test, and fixed it. **No model was asked**; the files and commands are real.

| file | what it is |
| --- | --- |
| `demo/words.py` | the module |
| `demo/test_words.py` | three tests, one of which failed at first |
| `demo/README.md` | how to use it |

The fix was one line:

```python
for word in re.findall(r"[a-z']+", text.lower()):
```

1. Wrote the module and its tests
2. Ran them: *one failed*
3. Fixed it, ran them again: all passed
"""
STEPS = ("Look around", "Write the module", "Write its tests", "Make the tests pass", "Document it")


def files(agent: Agent, prompt: str) -> str:
    """A small programming task from the first look to the summary: about 20 tool calls, one of which fails."""
    agent.say(
        "Demo: no model is asked and no account is used. I follow a script, but what I do to the files is real. "
        f"You asked: {prompt.strip()[:200]}"
    )
    agent.plan(*STEPS)
    agent.bash("ls -la", "List the workspace")
    for name in [name for name in agent.glob("*") if name.endswith((".md", ".txt", ".toml"))][:2]:
        agent.read(name)
    agent.think("Demo: an agent would think here. A word counter is small, and easy to get wrong in one place.")
    agent.plan(*STEPS, done=1)
    agent.write("demo/words.py", MODULE)
    agent.plan(*STEPS, done=2)
    agent.write("demo/test_words.py", TESTS)
    agent.say("Demo: the module and its tests are written. Now I run them.")
    agent.plan(*STEPS, done=3)
    test = f"cd demo && {agent.python} -B -m unittest -v test_words"
    if not agent.bash(test, "Run the tests"):
        agent.say("Demo: one test fails: `The` and `the` are counted apart. I look for the place.")
        agent.grep(r"findall", "demo/words.py")
        agent.read("demo/words.py")
        agent.edit("demo/words.py", 'r"[a-z\']+", text)', 'r"[a-z\']+", text.lower())')
        agent.bash(test, "Run the tests again")
    agent.plan(*STEPS, done=4)
    agent.write("demo/README.md", README)
    agent.bash(f"cd demo && {agent.python} -B words.py README.md > top.txt; cat top.txt", "Try it on its own README")
    agent.bash("rm -f demo/top.txt", "Remove the scratch file")
    agent.plan(*STEPS, done=5)
    agent.say(SUMMARY)
    return SUMMARY


def approval(agent: Agent, prompt: str) -> str:
    """Asks before it writes a file and before it runs a command."""
    agent.say(f"Demo: I ask before I change anything. You asked: {prompt.strip()[:200]}")
    wrote = agent.write("demo/hello.sh", "echo hello from the demo agent\n")
    ran = agent.bash("sh demo/hello.sh", "Run the script")
    text = f"Demo: the file was {'written' if wrote else 'not written'}, the command {'ran' if ran else 'did not run'}."
    agent.say(text)
    return text


def long(agent: Agent, prompt: str) -> str:
    """One command that takes ten minutes: something to interrupt or cancel."""
    agent.say(f"Demo: this takes long. Interrupt or cancel me. You asked: {prompt.strip()[:200]}")
    agent.bash("echo started; sleep 600", "Wait for ten minutes")
    return "Demo: waited for ten minutes."


def numbers(agent: Agent, prompt: str) -> str:
    """Numbered lines of text, so that a reader can tell whether one is missing or out of order."""
    for number in range(1, agent.count + 1):
        agent.say(f"Demo: line {number}")
    return f"Demo: {agent.count} lines"


def calls(agent: Agent, prompt: str) -> str:
    """Many quick tool calls: each makes two events that are never merged."""
    agent.write("demo/note.txt", "Demo: a note.\n")
    for _ in range(agent.count - 1):
        agent.read("demo/note.txt")
    return f"Demo: {agent.count} calls"


def follow_up(agent: Agent, prompt: str) -> str:
    """What it does with a further message: keeps it in a file."""
    notes = agent.cwd / "demo" / "notes.md"
    before = notes.read_text() if notes.exists() else "# Notes\n"
    agent.say(f"Demo: you said: {prompt.strip()[:500]}")
    agent.write("demo/notes.md", f"{before}- {' '.join(prompt.split())[:500]}\n")
    text = "Demo: I wrote that down in `demo/notes.md`."
    agent.say(text)
    return text


SCENARIOS: dict[str, Callable[[Agent, str], str]] = {
    "files": files,
    "approval": approval,
    "long": long,
    "numbers": numbers,
    "calls": calls,
}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="agentstream-demo",
        description="A demo agent without a model. Prints Claude Code's stream-json.",
    )
    parser.add_argument("prompt", nargs="?", help="what to pretend to work on; default: read from stdin")
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="files")
    parser.add_argument("--pace", type=float, default=0.8, metavar="SECONDS", help="pause after each step; 0: none")
    parser.add_argument("--count", type=int, default=1000, help="how many lines or calls (numbers, calls)")
    parser.add_argument("--input-format", choices=("text", "stream-json"), default="text")
    parser.add_argument("--include-partial-messages", action="store_true")
    parser.add_argument("--permission-prompt-tool", choices=("stdio",))
    parser.add_argument("--permission-mode", default="default")
    parser.add_argument("--resume", metavar="SESSION_ID")
    parser.add_argument("--version", action="version", version=f"{VERSION} (Demo agent)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run until the turn is over (text input), or until stdin is closed and nothing is left to do (stream input)."""
    options = _options(arguments)
    streaming = options.input_format == "stream-json"
    prompt: str | None = options.prompt
    if prompt is None and not streaming:
        # Before `Wire` handles SIGINT: this read is not one that it could end.
        prompt = sys.stdin.read()
    if not streaming and not (prompt or "").strip():
        print("Error: Input must be provided either through stdin or as a prompt argument", file=sys.stderr)
        return 1
    wire = Wire(streaming=streaming)
    agent = Agent(wire, options)
    work = SCENARIOS[options.scenario]
    if not streaming:
        return 0 if agent.turn(work, prompt or "") else 1
    if prompt is not None:
        wire.messages.append(prompt)
    finished = True
    while True:
        try:
            while not wire.messages and not wire.eof:
                wire.wait()
        except Interrupted:
            # An interrupt between two turns has nothing to stop; SIGINT ends the program.
            if wire.signalled:
                return 0
            continue
        if not wire.messages:
            return 0 if finished else 1
        finished = agent.turn(work, wire.messages.popleft())
        if wire.signalled:
            return 1
        work = follow_up


if __name__ == "__main__":
    try:
        status = main()
    except BrokenPipeError:
        # Nobody reads any more; nothing that is said from here on can be heard.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)
