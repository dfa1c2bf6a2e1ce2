"""The command line: one line and an exit code for what a user did wrong."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.table import Table
from typer.testing import CliRunner

from conftest import quiet, small
from synapse_diffusion import doctor
from synapse_diffusion.cli import app, output
from synapse_diffusion.cli.beside import Beside
from synapse_diffusion.cli.words import command_line
from synapse_diffusion.config import dump_recipe
from synapse_diffusion.convert import store_bytes, unconverted
from synapse_diffusion.runs import Run
from synapse_diffusion.store.files import read_manifest


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from synapse_diffusion.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "eeg", "nothing.toml"], "nothing.toml: no such recipe"),
        (["convert", "eeg", "demo", "--set", "convert.sfrq=3"], "nearest is convert.sfreq"),
        (["convert", "eeg", "demo"], "demo/bids: no such folder; set paths.bids"),
        (["train", "eeg", "demo"], "no signal store; run `synapse-diffusion convert`"),
        (["export", "nowhere", "out", "--format", "npy"], "nowhere: no such folder; give a signal store"),
        (["embed", "demo"], "demo/bids/stimuli: no such folder; set paths.images"),
        (["embed", "demo", "--set", "embed.encoder=darknet"], "encoder = 'darknet' needs weights"),
        (["info", "nowhere"], "nowhere: no such folder; give a BIDS data set"),
        (["evaluate", "elsewhere"], "elsewhere: not a run"),
        (["evaluate", "elsewhere", "--out", "x"], "--out is for the table over several seeds"),
        (["download", "things", "out", "--from", "nowhere"], "--from nowhere: no such folder"),
        (["download", "things", "out", "--subject", "2"], "takes a folder and --from only"),
        (["download", "eeg1", "out", "--from", "nowhere"], "name a copy of ds003825 1.2.0"),
        (["run", "demo", "--set", "nonsense"], "--set nonsense: give it as branch.key=value"),
        (["run", "demo", "--from", "evaluate", "--until", "train"], "that one comes before this one"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_help_is_instant(tmp_path: Path) -> None:
    heavy = "{'torch', 'mne', 'pandas', 'numpy', 'pydantic'}"
    probe = f"import sys; import synapse_diffusion.cli; print(list({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "evaluate" in run("--help", cwd=tmp_path).stdout


def test_a_shell_completes_commands_and_shipped_recipes(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['synapse-diffusion']; from synapse_diffusion.cli import main; main()"
    for words, expected in (("synapse-diffusion eval", ["evaluate"]), ("synapse-diffusion run eeg_", None)):
        asked = {"_SYNAPSE_DIFFUSION_COMPLETE": "complete_bash", "COMP_WORDS": words}
        env = {**os.environ, **asked, "COMP_CWORD": str(len(words.split()) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        recipes = Path(output.__file__).parents[1] / "recipes"
        assert done.stdout.split() == (expected or sorted(path.stem for path in recipes.glob("eeg_*.toml")))


def test_a_json_log_is_all_that_standard_output_holds(tmp_path: Path) -> None:
    code = (
        "from synapse_diffusion.cli import data, main; from synapse_diffusion.errors import DataError\n"
        "def fetch(*_):\n    print('of a library')\n    raise DataError('one <sentence>')\n"
        "import synapse_diffusion.download as d; d.download_things = fetch\n"
        "main()"
    )
    arguments = ["--log-json", "download", "things", "out"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    begin, error, end = map(json.loads, done.stdout.splitlines())
    assert (begin["event"], begin["command"]) == ("begin", "synapse-diffusion --log-json download things out")
    assert (error["event"], error["line"]) == ("error", "one <sentence>")
    assert (end["event"], end["exit_code"]) == ("end", done.returncode) == ("end", 2)
    assert all(line["time"].endswith("Z") for line in (begin, error, end))
    assert done.stderr.splitlines() == ["of a library", "error: one <sentence>"]


def test_progress_is_told_at_most_once_a_second_and_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(output, "events", output.Events(file))
    with output.progress_bar() as progress:
        for k in range(1000):
            progress(f"training, validation score {k}", k + 1, 1000)
    output.say("trained")
    table = Table("a", "b", title="scores")
    table.add_row("1", "2")
    output.show(table)
    first, last, said, shown = map(json.loads, file.getvalue().splitlines())
    for told, k in ((first, 0), (last, 999)):
        expected = {"what": "training", "detail": f"validation score {k}", "done": k + 1, "total": 1000}
        assert told == {"time": told["time"], "event": "progress", **expected}
    assert (said["event"], said["line"]) == ("said", "trained")
    assert (shown["title"], shown["columns"], shown["rows"]) == ("scores", ["a", "b"], [["1", "2"]])


BAR = """
import sys, time
from synapse_diffusion.cli.output import progress_bar, say
with progress_bar() as progress:
    for k in range(9):
        progress("converting", k, 8)
        time.sleep(0.05)
    say("said")
"""


def test_a_bar_tells_rate_and_time_left_on_a_terminal_alone(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BAR], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("said\n", "")
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    for name in ("out", None):
        ours, theirs = pty.openpty()
        with (tmp_path / "out").open("w") as out:
            subprocess.run(
                [sys.executable, "-c", BAR], stdout=out if name else theirs, stderr=theirs, env=env, check=True
            )
        os.close(theirs)
        shown = os.read(ours, 65536).decode()
        os.close(ours)
        assert "converting" in shown
        assert "/s" in shown
        assert "left" in shown
        if name:  # not on the terminal, where the bar is
            assert (tmp_path / name).read_text() == "said\n"
            assert "said" not in shown
        else:  # in a row of its own, which the bar has left
            assert "\x1b[2Ksaid\r\n" in shown


def test_doctor_finds_nothing_lacking(study: Path) -> None:
    found = doctor.diagnose(small(study))
    assert found.lacks == ()
    assert found.recipe["recordings"] == "2, all converted"
    assert found.recipe["training"].startswith("1 process, ")
    assert {"processors", "memory", "GPUs", "PyTorch", "free disk", "Slurm", "Ray"} <= set(found.machine)
    assert [row[0] for row in found.extras.rows] == list(doctor.EXTRAS)
    new, n = unconverted(small(study, "data.name=other"), quiet)
    assert len(new) == n == 2
    recipe = small(study)
    store = read_manifest(study / "stores/small" / new[0].folder)
    assert store_bytes(new[0], recipe) == pytest.approx(store["signal_bytes"], rel=0.01)


def test_doctor_says_what_is_lacking(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "eeg_retrieval", "--set", "execution.device=cuda:9"])
    assert done.exit_code == 3
    lacks = [line for line in done.stdout.splitlines() if line.startswith("lacks: ")]
    assert [line.split(": ")[1] for line in lacks[-2:]] == ["data/ds003825", "data/things-images"]
    assert lacks[0].startswith("lacks: execution.device = 'cuda:9' cannot be used")
    assert len(lacks) == 3
    assert CliRunner().invoke(app, ["doctor", "demo"]).exit_code == 0  # its study is simulated first
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("synapse_diffusion.download.checks.Folder.free_bytes", lambda self: 1000)
    [full] = doctor.diagnose(small(study, "data.name=other")).lacks
    assert "are needed for 2 recordings and 1 kB are free" in full
    monkeypatch.setattr(doctor, "_version", lambda package: "")
    lacks = list(doctor.diagnose(small(study, "convert.ica=iclabel", "data.name=x", "data.people=01")).lacks)
    assert lacks[-1] == ("convert.ica = 'iclabel' needs mne-icalabel: pip install 'synapse-diffusion[artefacts]'")


def test_a_command_beside_is_heard_and_ended(study: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(dump_recipe(small(study)), encoding="utf-8")
    lines: list[str] = []
    with Beside("convert", "eeg", str(tmp_path / "small.toml")) as beside:
        beside.wait(lines.append, quiet)
    assert str(study / "stores/small") in lines
    with Beside("info", str(tmp_path / "nowhere")) as beside:
        beside.wait(lines.append, quiet)  # whoever needs what it should have made sees the reason
    with Beside("doctor", "demo") as beside:
        pass
    assert beside._process.returncode == -signal.SIGTERM


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at processes as Linux shows them")
def test_a_command_beside_ends_with_its_parent(study: Path, tmp_path: Path) -> None:
    """Also where the parent is killed for good."""
    recipe = small(study, "train.steps=1000000", f'paths.runs="{tmp_path / "runs"}"')
    (tmp_path / "long.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    words = ("train", "eeg", str(tmp_path / "long.toml"))
    lines = (
        "import time; from synapse_diffusion.cli.beside import Beside",
        f"with Beside(*{words}) as beside:",
        "    print(beside._process.pid, flush=True)",
        "    time.sleep(600)",
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        while not list((tmp_path / "runs").rglob("splits.tsv")):
            time.sleep(0.05)
        assert is_alive(pid)
        parent.kill()
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Is there such a process, and not only what nobody has waited for?"""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def test_the_command_is_kept_as_it_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/bin/synapse-diffusion", "run", "demo", "--set", "labels.classes=bird,body part"]
    )
    assert command_line() == "synapse-diffusion run demo --set 'labels.classes=bird,body part'"
    monkeypatch.setattr(sys, "argv", ["mine.py", "run", "demo"])
    assert command_line() == "python mine.py run demo"


def test_what_cannot_be_written_and_who_does_not_listen(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("predict", str(trained.folder), "--out", "file", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert refused.stderr.startswith("error: file: File exists")
    pipe = f"{sys.executable} -m synapse_diffusion --log-json doctor | head -n 1"
    left = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
    assert json.loads(left.stdout)["event"] == "begin"
    assert left.stderr == ""
