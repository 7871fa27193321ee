"""What tests share, each helper once: working directories, terminals, disks, and waiting."""

from .desk import HERMES, Desk, MakeDesk, all_metadata, check_always, environment
from .example import CNN, EXAMPLE, SETTINGS
from .namespaces import NamespaceDesk, namespace
from .project import PUPPET, Project, Puppet
from .terminal import Screen, Terminal
from .waiting import LIMIT, LONG, RecordProperty, is_alive, some, times, tries, until
from .words import IDENTIFIER, JOB, PYTHON, TRAIN

__all__ = [
    "CNN", "EXAMPLE", "HERMES", "IDENTIFIER", "JOB", "LIMIT", "LONG", "PUPPET", "PYTHON",
    "SETTINGS", "TRAIN", "Desk", "MakeDesk", "NamespaceDesk", "Project", "Puppet",
    "RecordProperty", "Screen", "Terminal", "all_metadata", "check_always", "environment",
    "is_alive", "namespace", "some", "times", "tries", "until",
]  # fmt: skip
