"""The page of `mac-demo` as a Space. The Space's variable MAC_MODEL may name another model than the packaged one."""

import os
import sys

from demo_mac.cli import main


arguments = ["--host", "0.0.0.0", "--port", "7860", "--examples", "examples"]
if model := os.environ.get("MAC_MODEL"):
    arguments += ["--model", model]
sys.exit(main(arguments))
