#!/bin/sh
# Says in one line each what this machine lacks, with the command that installs it.
missing=0

lacks() {
    echo "Missing: $1. Install it with: $2" >&2
    missing=1
}

command -v cargo >/dev/null || lacks "cargo (Rust 1.90 or later)" "curl -sSf https://sh.rustup.rs | sh"
command -v make >/dev/null || lacks "make" "apt-get install make"
command -v cc >/dev/null || lacks "a C compiler" "apt-get install gcc libc6-dev"
command -v strip >/dev/null || lacks "strip" "apt-get install binutils"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || lacks "Python 3.11 or later" "apt-get install python3"
python3 -c 'import venv, ensurepip' 2>/dev/null || lacks "Python's venv" "apt-get install python3-venv"
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null || lacks "Node 20 or later" "apt-get install nodejs"
command -v npm >/dev/null || lacks "npm" "apt-get install npm"

exit $missing
