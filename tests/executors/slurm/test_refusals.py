"""What `sbatch` says when it has not taken a job: what is waited for, and what is final."""

from __future__ import annotations

import random

import pytest

from hermes.executors.slurm.refusals import Meaning, last_line, own_lines, read_refusal

from ...support import RecordProperty

REFUSED, TOO_LARGE, FULL, LATER, UNCLEAR = Meaning

POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"

VERDICTS = {
    # Until jobs have ended
    POLICY: FULL,
    "Job violates accounting/QOS policy": FULL,
    "Resource temporarily unavailable": FULL,
    "Unable to create job record, try again": FULL,
    "MaxJobCount limit reached": FULL,
    # An array of fewer tasks may do
    "Invalid job array specification": TOO_LARGE,
    # Until the controller is back
    "Unable to contact slurm controller (connect failure)": LATER,
    "Unable to contact slurm controller": LATER,
    "Slurm backup controller in standby mode": LATER,
    "Controller is in standby mode, try a different controller": LATER,
    "Rate limit exceeded, please retry momentarily": LATER,
    "Rate limit exceeded, please retry later": LATER,
    "Protocol authentication error": LATER,
    "Authentication credential expired": LATER,
    "Can't find an address, check slurm.conf": LATER,
    "Connection refused": LATER,
    "No route to host": LATER,
    "Network is unreachable": LATER,
    "Temporary failure in name resolution": LATER,
    "System submissions disabled": LATER,
    "Requested operation is presently disabled": LATER,
    "Requested nodes are busy": LATER,
    "I/O error writing script/environment to file": LATER,
    # It may have arrived all the same
    "Socket timed out on send/recv operation": UNCLEAR,
    "Zero Bytes were transmitted or received": UNCLEAR,
    "Header lengths are longer than data received": UNCLEAR,
    "Insane message length": UNCLEAR,
    "Unexpected message received": UNCLEAR,
    "Unexpected missing socket error": UNCLEAR,
    "Communication connection failure": UNCLEAR,
    "Communication shutdown failure": UNCLEAR,
    "Message send failure": UNCLEAR,
    "Message receive failure": UNCLEAR,
    "Unable to contact slurm controller (send failure)": UNCLEAR,
    "Unable to contact slurm controller (receive failure)": UNCLEAR,
    "Unable to contact slurm controller (shutdown failure)": UNCLEAR,
    "Connection timed out": UNCLEAR,
    "Connection timed out establishing": UNCLEAR,
    "Connection timed out reading": UNCLEAR,
    "Connection reset by peer": UNCLEAR,
    "Connection forced closed by quiesce timeout": UNCLEAR,
    "Software caused connection abort": UNCLEAR,
    "Transport endpoint is not connected": UNCLEAR,
    "Process is shutting down and closing all communications": UNCLEAR,
    "Broken pipe": UNCLEAR,
    "Interrupted system call": UNCLEAR,
    "Read would block": UNCLEAR,
    # Never
    "Unspecified error": REFUSED,
    "Invalid partition name specified": REFUSED,
    "No partition specified or system default partition": REFUSED,
    "Access/permission denied": REFUSED,
    "User's group not permitted to use this partition": REFUSED,
    "More processors requested than permitted": REFUSED,
    "Node count specification invalid": REFUSED,
    "CPU count specification invalid": REFUSED,
    "Requested node configuration is not available": REFUSED,
    "Requested partition configuration not available now": REFUSED,
    "Required partition not available (inactive or drain)": REFUSED,
    "Memory required by task is not available": REFUSED,
    "Invalid account or account/partition combination specified": REFUSED,
    "Invalid qos specification": REFUSED,
    "Invalid license specification": REFUSED,
    "Invalid feature specification": REFUSED,
    "Invalid generic resource (gres) specification": REFUSED,
    "Requested time limit is invalid (missing or exceeds some limit)": REFUSED,
    "Access denied to requested reservation": REFUSED,
    "Requested reservation is invalid": REFUSED,
    "Job dependency problem": REFUSED,
    "Pathname of a file, directory or other parameter too long": REFUSED,
    "Argument list too long": REFUSED,
    "Requested account has breached requested QOS usage threshold": REFUSED,
    "Burst Buffer permission denied": REFUSED,
    "Burst Buffer resource limit exceeded": REFUSED,
    "Invalid user id": REFUSED,
}
"""What follows `Batch job submission failed: `, from Slurm 17.11 to 25.05 and the C library."""

LIMITS = {
    "AssocMaxSubmitJobLimit": FULL,
    "AssocGrpSubmitJobsLimit": FULL,
    "QOSGrpSubmitJobsLimit": FULL,
    "QOSMaxSubmitJobPerUserLimit": FULL,
    "QOSMaxSubmitJobPerAccountLimit": FULL,
    "AssocMaxJobsLimit": FULL,
    "AssocGrpJobsLimit": FULL,
    "QOSMaxJobsPerUserLimit": FULL,
    "QOSJobLimit": FULL,
    "AssociationJobLimit": FULL,
    "QOSMaxWallDurationPerJobLimit": REFUSED,
    "AssocMaxWallDurationPerJobLimit": REFUSED,
    "QOSMaxCpuPerUserLimit": REFUSED,
    "QOSMaxCpuPerJobLimit": REFUSED,
    "AssocMaxCpuPerJobLimit": REFUSED,
    "AssocMaxNodePerJobLimit": REFUSED,
    "QOSMaxNodePerUserLimit": REFUSED,
    "QOSMaxGRESPerUser": REFUSED,
    "QOSMaxMemoryPerJob": REFUSED,
    "QOSMinCpuNotSatisfied": REFUSED,
    "QOSMinGRES": REFUSED,
    "QOSTimeLimit": REFUSED,
    "AssocGrpBillingMinutes": REFUSED,
    "AssocGrpCPUMinutesLimit": REFUSED,
    "QOSUsageThreshold": REFUSED,
}
"""Limits of accounting, which newer versions name in the line before `POLICY`."""

OTHER_WORDS = {
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying": FULL,
    "sbatch: error: Slurm job queue full, sleeping and retrying": FULL,
    "sbatch: error: Job creation temporarily disabled, retrying": LATER,
    "sbatch: error: Slurm controller not responding, sleeping and retrying": LATER,
    "sbatch: error: slurm_receive_msg: Zero Bytes were transmitted or received": UNCLEAR,
    "sbatch: unrecognized option '--no-such'\nTry \"sbatch --help\" for more information": REFUSED,
    "sbatch: error: Invalid --time specification\nsbatch: error: Please try: 1-00:00": REFUSED,
    "sbatch: fatal: Invalid dependency": REFUSED,
    "ERROR: you have reached your job submit limit of 100\nAsk help@site.org": FULL,
    "You already have the maximum number of jobs (50) in this queue": FULL,
    "Too many jobs.": FULL,
    "The queue is full, come back tomorrow": FULL,
    "sbatch is temporarily out of service": LATER,
    "ERROR: no project was given": REFUSED,
    "/usr/bin/sbatch: line 3: module: command not found": REFUSED,
}
"""What wrappers of sites say, and what `sbatch` says without a verdict."""

AROUND = (
    "",
    "*** Welcome to cluster X ***\n",
    "sbatch: info: charging account demo\n",
    "sbatch: lua: 3 jobs are queued, try again later\n",
    "sbatch: error: your password will have timed out in 3 days\n",
    "Maintenance on Monday: no route to host login3, submit limit 100, connection refused\n",
    "\n \n#####################\n",
)


def verdict(words: str, *before: str) -> str:
    lines = [*before, f"Batch job submission failed: {words}"]
    return "".join(f"sbatch: error: {line}\n" for line in lines)


@pytest.mark.fault(34)
def test_every_wording_has_its_meaning_whatever_stands_around_it(
    record_property: RecordProperty,
) -> None:
    known = {verdict(words): meaning for words, meaning in VERDICTS.items()}
    known |= {verdict(POLICY, limit): meaning for limit, meaning in LIMITS.items()}
    record_property("tried", len(known) * len(AROUND) ** 2 + len(OTHER_WORDS) + len(LIMITS))
    for text, meaning in known.items():
        for before in AROUND:
            for after in AROUND:
                found = read_refusal(f"{before}{text}{after}")
                assert found.meaning is meaning, (before, text, after)
                assert text.rpartition("failed: ")[2].strip() in found.said
    for text, meaning in OTHER_WORDS.items():
        assert read_refusal(text).meaning is meaning, text
    # An `sbatch` that names the limit alone
    for limit, meaning in LIMITS.items():
        assert read_refusal(f"sbatch: error: {limit}\n").meaning is meaning


def test_the_limit_is_told() -> None:
    said = read_refusal(verdict(POLICY, "QOSMaxWallDurationPerJobLimit")).said
    assert said.startswith("QOSMaxWallDurationPerJobLimit: Batch job submission failed: ")
    assert read_refusal("") == (UNCLEAR, "it said nothing")


def test_what_else_is_printed_never_stops_the_reading(record_property: RecordProperty) -> None:
    chance, tried = random.Random(34), 500
    record_property("tried", tried)
    for _ in range(tried):
        text = "".join(chance.choice("sbatch: error\n\t\x00\x1b[31m|;_\ufffdé") for _ in range(60))
        read_refusal(text)


FAILED = "Batch job submission failed: "
NOT_AVAILABLE = "allocation failure: Requested node configuration is not available"
NO_CONTACT = "slurm_load_jobs error: Unable to contact slurm controller"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"sbatch: error: partition: x\nsbatch: error: {FAILED}no name\n", f"{FAILED}no name"),
        (f"{NOT_AVAILABLE}\n\n", NOT_AVAILABLE),
        (f"{NOT_AVAILABLE}\nSee our wiki\n", NOT_AVAILABLE),
        (f"{NO_CONTACT}\n", NO_CONTACT),
        ("sbatch: unrecognized option '--x'\nTry \"sbatch --help\"\n", "unrecognized option '--x'"),
        ("\n", ""),
    ],
)  # fmt: skip
def test_the_last_line_says_why(text: str, line: str) -> None:
    assert last_line(text) == line


def test_without_lines_of_its_own_all_lines_count() -> None:
    assert own_lines("one\n\n two\n") == ["one", "two"]
