"""What went wrong in other people's hands: each finding is named by the test that would find it.

A test says `@pytest.mark.finding("K3.1")`. The letters and numbers are those under which findings
were collected; what each was stands here.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]

FINDINGS = {
    "K1.1": "a power loss took back the last change of the state database",
    "K1.2": "a verb was accepted although its state could not be noted",
    "K2.1": "a write to a file on the mount moved neither of its times",
    "K2.2": "an imported device showed the same times every night",
    "K2.3": "a restart put the times back",
    "K2.4": "a stat just before an update was answered from the cache after it",
    "K3.1": "two devices over one storage became master and shadow",
    "K3.2": "a volume that lies on the service's own mount was accepted",
    "K3.3": "an exported shadow became another set's master",
    "K3.4": "the ticket of another shadow of the same size was accepted",
    "K3.5": "one storage was used by two instances",
    "K3.6": "an update believed the bits while another import was not joined",
    "K3.7": "a master replaced by an empty file was copied over the good shadow",
    "K3.8": "a shadow that is lent, as the ticket beside it says, was enabled",
    "K3.9": "a volume was replaced while the service ran, and nobody was told",
    "K3.10": "a volume was replaced after a kill, and nobody noticed",
    "K3.11": "a shadow was replaced while the service was down, and copied over the master",
    "K4.1": "volumes whose disk came late cost the point in time",
    "K4.2": "a mount point above the volumes hid them",
    "K5.1": "a restore that could not be noted took the good shadow offline",
    "K5.2": "nothing led out of a restore whose shadow was lost",
    "K5.3": "nothing led out of a set whose volumes were both lost",
    "K6.1": "swapped words copied over a live file system",
    "K6.2": "a file system was overwritten by a bitmap",
    "K6.3": "a volume was made below /dev",
    "K6.4": "the older copy was copied over newer production",
    "K6.5": "the question before a restore did not say what is lost",
    "K7.1": "a disabled incomplete shadow was mounted, and read rubbish",
    "K8.1": "ls waited for a shadow that did not answer, and every volume with it",
    "K8.2": "a volume that hung kept the service from starting a program, and with it every verb",
    "K8.3": "a sync of open files that never ended kept its command waiting for ever",
    "K8.4": "a master that did not answer stopped every other volume",
    "K8.6": "a log that nobody read stopped the files of every volume",
    "K8.7": "an abort, or an update, waited for a sync of a GiB",
    "K9.1": "time in which the service stood still counted against a limit",
    "K9.2": "a thread that could not be started took sets offline",
    "K10.1": "the mount ignored a volume's access control list",
    "K10.2": "a volume in a closed directory was open to all on the mount",
    "K11.1": "each set that was enabled and disabled left its bits in locked memory",
    "K11.2": "the history was kept for ever, and each start took longer for it",
    "K11.3": "the history could be seen by nobody",
    "K11.4": "a refused enable filled the file system; an errno was shown for words",
    "K12.1": "a refused command on a group had changed a part of it",
    "K12.2": "a command on a group that had stopped half-way could not be run again",
    "K12.3": "a volume added while the group was out could not be exported with it",
    "K13.1": "a comparison believed the page cache",
    "K13.2": "a comparison ended with a defect beside a disable",
    "K13.3": "a refused comparison did not say which condition was not met",
    "K13.4": "a comparison with nothing to do stood at 0 %",
    "K14.1": "the log had no time, no priority in the journal, and letters for verbs",
    "K14.2": "a closed terminal ended the service",
    "K14.3": "the end of a service whose socket was removed was a traceback",
    "K14.4": "a second SIGTERM ended the service before its end",
    "K14.6": "a mount inside another service's mount, or over content, was accepted silently",
    "K15.1": "the tour and the procedure lost what was written before the point in time",
    "K15.2": "a set named by its master or its file on the mount was unknown; verbs took one set",
    "K15.5": "nobody said where a ticket was",
    "K16.1": "a file system in fstab on a volume made an ordering cycle with the service",
    "K16.2": "restarts by an administrator counted as failures of the service",
    "K16.3": "an installation took the files of the running service away first",
    "K14.5": "with no descriptor left clients got no answer, and the log tracebacks",
    "K15.6": "a message advised a part of a command, for the reader to complete",
    "K15.7": "what a message advised was refused",
    "K15.8": "somebody had it open, and nobody said who, or what ends that",
    "K15.9": "a mount that only another mount namespace has was found by nobody",
    "K15.10": "a point in time that nobody knows was of Jan 1 1970",
    "K15.11": "iijoin did not find the bitmap of an import that iiadm -I had made",
    "K15.12": "the demonstration failed while another mount namespace held its loop device",
    "K15.13": "a closed standard stream was a defect",
    "K15.14": "a command on a group did not say what it had done to which set",
}


def _named() -> Iterator[tuple[str, str]]:
    """(finding, test file) of each mark."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.finding":
                for argument in node.args:
                    yield ast.literal_eval(argument), path.name


def test_every_finding_is_named_by_a_test():
    assert set(FINDINGS) - {finding for finding, _ in _named()} == set()


def test_no_test_names_a_finding_that_is_none():
    assert [pair for pair in _named() if pair[0] not in FINDINGS] == []
