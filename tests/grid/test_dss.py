"""The OpenDSS library keeps its footing in a process whose environment changes."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, threading
for number in range(50):
    os.environ[f"BEFORE_{number}"] = "x" * 50
from derms.grid.dss import altdss
for number in range(2000):
    os.environ[f"AFTER_{number}"] = "x" * 200
    del os.environ[f"AFTER_{number}"]
    os.environ[f"KEPT_{number}"] = "y"
versions = []
thread = threading.Thread(target=lambda: versions.append(altdss.NewContext().Version))
thread.start()
thread.join()
assert os.environ["BEFORE_7"] == "x" * 50
print(len(versions))
"""


FOLDERS = """
import os
from derms.grid import compiled
os.chdir("/")
compiled.take_context()
print(os.getcwd())
"""


@pytest.mark.slow
def test_first_context_leaves_the_process_in_its_folder() -> None:
    done = subprocess.run([sys.executable, "-c", FOLDERS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "/\n"), done.stderr


@pytest.mark.slow
def test_thread_that_enters_the_library_first_after_the_environment_has_moved_lives() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
