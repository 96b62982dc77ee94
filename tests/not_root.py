"""Root may read all: what somebody else is told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def told(folder: Path, imports: str, expression: str) -> str:
    """What `expression`, or the error that it raises, prints in a process within `folder` that is not root's."""
    code = (
        f"import os; {imports}\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        f"try: print({expression})\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True).stdout
