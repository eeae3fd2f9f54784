"""Where `mac-caption` begins: Ctrl-C while it starts, most of which is imports, ends it in a line, too."""

import sys


def main() -> int:
    """Run the command of `processing_mac.cli_mac` and return its exit code; 130 after Ctrl-C."""
    try:
        from processing_mac.cli_mac import main as caption  # takes seconds, so it stands where Ctrl-C is caught

        return caption()
    except KeyboardInterrupt:
        print("mac-caption: stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
