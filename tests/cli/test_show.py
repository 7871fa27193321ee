"""`hermes show`: all about one experiment."""

from __future__ import annotations

import json

from ..query.simple import experiment, identifier
from ..support import Desk

JOB = """\
import os, sys
print("return: 3"); print("return: 7"); print("\\x1b[31m", file=sys.stderr)
open(os.path.join(os.environ["HERMES_EXPERIMENT_DIR"], "my file\\n"), "w").write("12345")
sys.exit(4)
"""


def test_all_about_one(desk: Desk) -> None:
    desk.write("job.py", JOB)
    desk.hermes_file("PROD([[python, job.py, --lr {lr}],[-c 'two words']], lr=[0.5])")
    desk.hermes("exec", "-f", "x.hermes", "-n", "my name", "--timeout", "1h", code=1)
    shown = desk.hermes("show").stdout
    made = desk.experiment()
    for told in (
        f"{made.identifier}  job  my name\n",
        "status       failed: exit code 4\n",
        f"command      python job.py {made.identifier} --lr 0.5\n",
        "parameters   lr  0.5\n",
        "metrics      return  7  at step 1; min 3, max 7, mean 5 of 2\n",
        "comments     two words\n",
        f"directory    experiments/job/my name/{made.identifier}\n",
        r"files        my file\n  5 B, written" + "\n",
        "hermes file  x.hermes:5\n",
        "settings     timeout: 3600.0\n",
        "stdout       return: 3\n             return: 7\n",
        r"stderr       \x1b[31m",
    ):
        assert told in shown, shown
    # By any part of the identifier, and by all of it
    for part in (made.identifier, made.identifier.split("_")[3], made.identifier[12:]):
        assert desk.hermes("show", part).stdout == shown
    told = json.loads(desk.hermes("show", "--json").stdout)
    stored = json.loads((made.directory / "hermes.json").read_bytes())
    assert told == told | stored
    assert told["directory"] == str(made.directory)
    assert told["metrics"]["return"]["last"] == 7


def test_which_one(desk: Desk) -> None:
    done = desk.hermes("show", code=2)
    assert done.stderr.startswith("error: there are no experiments yet\n")
    for number in range(8):
        experiment(desk.path / "experiments", number)
    broken = desk.path / "experiments" / "train" / "test" / identifier(8)
    broken.mkdir()
    (broken / "hermes.json").write_text("{")
    assert identifier(7) in desk.hermes("show").stdout
    assert f"{identifier(8)}/hermes.json` is not JSON" in desk.hermes("show", "08", code=2).stderr
    done = desk.hermes("show", "none", code=2)
    assert done.stderr == (
        "error: no experiment has `none` in its identifier\n"
        'hint: `hermes ls` lists them, `"name = none"` means those of a name\n'
    )
    done = desk.hermes("show", "12000000000", code=2)
    assert done.stderr.startswith(f"error: `12000000000` may be `{identifier(8)}`, ")
    assert done.stderr.endswith(", 4 more\n")
    elsewhere = desk.path / "elsewhere"
    elsewhere.mkdir()
    shown = desk.hermes("show", "000007", "--root", str(desk.path), cwd=elsewhere).stdout
    assert identifier(7) in shown
