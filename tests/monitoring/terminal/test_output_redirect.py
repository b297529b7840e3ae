"""Output of dependencies goes to the file, our own output to the terminal. The test redirects descriptors of a process
of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import logging, os, pathlib, subprocess, sys, warnings
from monitoring.terminal.output_redirect import output_to_file
with output_to_file(pathlib.Path(sys.argv[1])) as (output, errors):
    print("printed")
    os.write(2, b"from C\\n")
    subprocess.run(["echo", "from a child"])
    logging.getLogger("x").warning("logged")
    warnings.warn("warned")
    output.write("ours\\n")
    errors.write("our error\\n")
print("after")
"""


def test_what_goes_where(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(log)], capture_output=True, text=True, check=True)
    assert done.stdout == "ours\nafter\n"
    assert done.stderr == "our error\n"
    text = log.read_text()
    for chatter in ("printed", "from C", "from a child", "logged", "warned"):
        assert chatter in text
