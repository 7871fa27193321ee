from __future__ import annotations

from tests.support.desk import Desk


def test_a_report_of_what_was_run(desk: Desk) -> None:
    desk.write("job.py", "import sys; print('said', sys.argv)\nsys.exit('-b' in sys.argv)")
    desk.write("sweep.hermes", "EXEC\n[[python, job.py, -a]]\n[[python, job.py, -b]]\n")
    desk.hermes("exec", "-f", "sweep.hermes", code=1)
    assert desk.hermes("report", "-o", "all.html").stderr == "2 experiments in `all.html`\n"
    told = (desk.path / "all.html").read_text()
    assert '"status":"failed"' in told
    assert "said [" in told
    done = desk.hermes("report", "status = finished", "-o", "all.html", "--quiet")
    assert (done.stdout, done.stderr) == ("", "")
    assert '"status":"failed"' not in (desk.path / "all.html").read_text()


def test_nothing_to_report(desk: Desk) -> None:
    assert "there are no experiments yet" in desk.hermes("report", code=2).stderr
    assert not (desk.path / "report.html").exists()


def test_another_file_is_not_replaced(desk: Desk) -> None:
    desk.write("job.py", "")
    desk.hermes("exec", "-e", "python job.py")
    told = desk.hermes("report", "-o", "job.py", code=2).stderr
    assert "`job.py` is there already, and is no report" in told
    assert (desk.path / "job.py").read_text() == ""
