#!/bin/sh
# Install or upgrade cxr-edge on this board, without internet: sudo ./install.sh --enrol DEVICE.enrol
# Only what Python itself needs is looked at here; the rest is in installer/, which says what it does with --help.
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
python=${PYTHON:-/usr/bin/python3}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "install.sh: This system has no Python ($python): use a Debian, Ubuntu or Raspberry Pi OS with Python 3.10 or newer." >&2
    exit 2
fi
if ! "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "install.sh: Python 3.10 or newer is needed, and this is $("$python" -V 2>&1): use a newer system." >&2
    exit 2
fi
# Nothing is written beside the package: it may lie on a read-only stick.
exec "$python" -I -B -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from installer.main import main; sys.exit(main())' "$here" "$@"
