#!/usr/bin/env python3
"""The one command. It needs nothing but a Python: `./launch.py demo` in a fresh clone works.

First it finds a Python that is new enough, then it makes .venv beside this file (scripts/bootstrap.py), then it runs
itself again with that one's python, and only then imports the commands. Standard library only up to there. This file
alone must parse under every Python since 2.7, or the old ones could not say in one line what is missing.
"""

from __future__ import print_function

import os
import subprocess
import sys

NEEDED = (3, 11)
ROOT = os.path.dirname(os.path.realpath(__file__))
NAMES = ("python3.13", "python3.12", "python3.11", "python3.14", "python3.15", "python3", "python")


def main(argv):
    """Run the command `argv` names; the exit code."""
    if sys.version_info < NEEDED:
        return run_with_newer_python(argv)
    if ROOT not in sys.path:  # python -P
        sys.path.insert(0, ROOT)
    import commands

    if os.path.exists(os.path.join(ROOT, "pyproject.toml")) and not commands.is_answered_alone(argv):
        from scripts import bootstrap

        try:
            python = bootstrap.ensure(ROOT, commands.extras_of(argv))
        except bootstrap.BootstrapError as error:
            return complain(error, error.exit_code)
        except KeyboardInterrupt:
            return complain("interrupted; the next run starts the installation anew", 130)
        if python is not None:
            run_again(python, argv)
    return commands.main(argv)


def run_with_newer_python(argv):
    """Continue under the first python that is new enough."""
    for candidate in pythons():
        if is_new_enough(candidate):
            run_again(candidate, argv)
    needed = ".".join(map(str, NEEDED))
    return complain(
        "needs Python %s or newer, this is %s and no other was found on PATH or in ~/.pyenv: install one"
        " (Debian, Ubuntu: apt install python%s; else https://www.python.org/downloads/) and try again"
        % (needed, sys.version.split()[0], needed),
        2,
    )


def run_again(python, argv):
    """Replace this process by `python` running this file; does not return."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(python, [python, os.path.join(ROOT, "launch.py")] + list(argv))


def pythons():
    """Every python worth a try: that of .venv, those on PATH, those of pyenv."""
    yield os.path.join(os.environ.get("SYNERGY_VENV") or os.path.join(ROOT, ".venv"), "bin", "python")
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    for name in NAMES:
        for folder in folders:
            yield os.path.join(folder, name)
    versions = os.path.join(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"), "versions")
    if os.path.isdir(versions):
        for version in sorted(os.listdir(versions), reverse=True):
            yield os.path.join(versions, version, "bin", "python3")


def is_new_enough(python):
    """Whether there is such a file, it runs, and it is a Python that we can use."""
    if not os.access(python, os.X_OK):
        return False
    code = "import sys; sys.exit(sys.version_info < %r)" % (NEEDED,)
    with open(os.devnull, "w") as nowhere:
        try:
            return subprocess.call([python, "-c", code], stdout=nowhere, stderr=nowhere) == 0
        except OSError:
            return False


def complain(message, code):
    """Say one line, return the exit code."""
    print("launch.py: %s" % (message,), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
