"""Run the Java programs that pycocoevalcap (extra `metrics`) carries. What is missing is named, never downloaded."""

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from evaluation_mac.metrics.caption_scores import MetricUnavailable


def pycocoevalcap_folder(metric: str) -> Path:
    """The folder of the package, found without importing it."""
    package = find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise MetricUnavailable(f"{metric} needs pycocoevalcap: pip install 'mamba-audio-captioning[metrics]'")
    return Path(next(iter(package.submodule_search_locations)))


def run_java(metric: str, arguments: list[str], text: str = "") -> str:
    """Run Java with the arguments, feed it the text, and return what it prints."""
    java = shutil.which("java")
    if java is None:
        raise MetricUnavailable(f"{metric} needs Java: no command `java` was found")
    command = [java, "-Dfile.encoding=UTF-8", *arguments]
    result = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=False)
    if result.returncode != 0:
        causes = [line for line in result.stderr.splitlines() if "Exception" in line or "Error" in line]
        raise MetricUnavailable(f"{metric} failed, Java's exit status {result.returncode}: {' '.join(causes)[:500]}")
    return result.stdout
