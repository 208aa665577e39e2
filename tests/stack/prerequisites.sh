#!/bin/sh
# Says in one line each what this machine lacks, with the command that installs it.
missing=0

lacks() {
    echo "Missing: $1. Install it with: $2" >&2
    missing=1
}

rust=1.94.1
if ! command -v cargo >/dev/null; then
    lacks "Rust $rust or later" "curl -sSf https://sh.rustup.rs | sh"
elif ! printf '%s\n' "$rust" "$(rustc --version | cut -d ' ' -f 2)" | sort -VC; then
    lacks "Rust $rust or later (here is $(rustc --version))" "rustup update stable"
fi
command -v make >/dev/null || lacks "make" "apt-get install make"
command -v cc >/dev/null || lacks "a C compiler" "apt-get install gcc libc6-dev"
command -v strip >/dev/null || lacks "strip" "apt-get install binutils"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || lacks "Python 3.11 or later" "apt-get install python3"
python3 -c 'import venv, ensurepip' 2>/dev/null || lacks "Python's venv" "apt-get install python3-venv"
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || lacks "Node 20 or later" "apt-get install nodejs"
command -v npm >/dev/null || lacks "npm" "apt-get install npm"

exit $missing
