#!/usr/bin/env bash
# Runs every test, also the later ones when an earlier one fails, and closes with one line of sums.
set -uo pipefail
cd "$(dirname "$0")/.."

out=.local/test-output
mkdir -p "$out"
failed=0

# The integration tests and the SDK tests start the programs themselves.
cargo build --workspace --bins || exit 1
# A test that hangs must end as one that failed: all together take a third of this.
timeout 60m cargo test --workspace --no-fail-fast 2>&1 | tee "$out/cargo.txt"
status=${PIPESTATUS[0]}
[ "$status" -eq 0 ] || failed=1
[ "$status" -ne 124 ] || echo "The tests did not end within an hour. The last line without a result names the one that hangs."
.local/venv-sdk/bin/python -m pytest tests/sdk -ra 2>&1 | tee "$out/pytest.txt" || failed=1

# A run that broke off before it counted anything must not pass for one without failures.
if ! grep -q '^test result:' "$out/cargo.txt" || ! grep -qE '^=.* in [0-9.]+s' "$out/pytest.txt"; then
    failed=1
fi

echo
echo "Closing lines of the runners:"
grep '^test result:' "$out/cargo.txt"
tail -n 1 "$out/pytest.txt"
# The counts of one word ("passed", "failed", ...) in all closing lines, added up.
count() {
    { grep '^test result:' "$out/cargo.txt"; tail -n 1 "$out/pytest.txt"; } |
        grep -oE "[0-9]+ ($1)" | awk '{ sum += $1 } END { print sum + 0 }'
}
echo "all: $(count passed) passed, $(count 'failed|error|errors') failed, $(count 'skipped|ignored') skipped"
exit $failed
